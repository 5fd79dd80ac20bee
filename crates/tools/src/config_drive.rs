// SPDX-License-Identifier: AGPL-3.0-or-later
//! The config-drive step. It writes user-data, meta-data and network-config to a filesystem with the label `cidata`
//! (FAT, or ISO 9660 on a raw partition), where cloud-init's NoCloud source looks for them. It fails if
//! nothing in the installed system would read them.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use recipe::run_dir::Identity;
use recipe::{Format, Linux};

use crate::beneath::Root;
use crate::context::Context;
use crate::{cloud_init, mounts, partition};

/// cloud-init asks libblkid for this label in both cases. ISO 9660 has only upper case.
const VOLUME_ID: &str = "CIDATA";
/// Longest label of a host name (RFC 1123, 2.1).
const HOSTNAME_BYTES_MAX: usize = 63;

pub fn run(context: &Context) -> anyhow::Result<()> {
    let Context { places, linux, identity, reporter, .. } = context;
    let Some(drive) = recipe::layout::config_drive(&linux.layout) else {
        if let Some(given) = cloud_init::given(linux) {
            bail!("there is {given}, but no partition with the label cidata to put it on");
        }
        reporter.say("no cidata partition and nothing to put on one");
        return Ok(());
    };
    let files = files(linux, identity);
    let disk = partition::open_prepared(context)?;
    if cloud_init::given(linux).is_some() {
        // cloud-init's configuration is in /etc and /usr, which no layout puts on a separate partition.
        let root = recipe::layout::root(&linux.layout).context("the layout has no root")?;
        let node = disk.partition_node(root.number)?;
        let mounted = mounts::mount_one(&node, root.format, &places.target)?;
        cloud_init::check(&Root::open(&places.target)?, linux)?;
        mounted.unmount()?;
    }
    let node = disk.partition_node(drive.number)?;
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    reporter.say(&format!("write {} to partition {}", names.join(", "), drive.number));
    match drive.format {
        Format::Vfat => {
            let mounted = mounts::mount_one(&node, drive.format, &places.target)?;
            write_files(&Root::open(&places.target)?, &files)?;
            mounts::sync(&mounted)?;
            mounted.unmount()
        }
        Format::Raw => {
            let placed = partition::place(&linux.layout, disk.size_bytes, disk.sector_bytes)?;
            let place = placed.iter().find(|placed| placed.partition.number == drive.number);
            let bytes = place.context("the layout has no such partition")?.size_bytes;
            write_image(&node, bytes, &files)
        }
        other => bail!("a config drive is vfat or raw, not {}", other.name()),
    }
}

/// NoCloud requires user-data and meta-data. With a stable instance id, cloud-init runs its
/// once-per-instance parts only once.
fn files(linux: &Linux, identity: &Identity) -> Vec<iso9660::File> {
    let file = |name: &str, bytes: &[u8]| iso9660::File { name: name.into(), bytes: bytes.into() };
    let user_data =
        linux.user_data.as_ref().map_or(b"#cloud-config\n{}\n".as_slice(), |p| p.as_bytes());
    let meta_data = match &linux.meta_data {
        Some(given) => given.as_bytes().to_vec(),
        None => meta_data(identity).into_bytes(),
    };
    let mut files = vec![file("user-data", user_data), file("meta-data", &meta_data)];
    if let Some(network_config) = &linux.network_config {
        files.push(file("network-config", network_config.as_bytes()));
    }
    files
}

fn meta_data(identity: &Identity) -> String {
    let mut text = format!("instance-id: \"{}\"\n", identity.job_id);
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = identity.server_serial.to_ascii_lowercase().chars().map(letter).collect();
    let name = name.get(..name.len().min(HOSTNAME_BYTES_MAX)).unwrap_or_default().trim_matches('-');
    if !name.is_empty() {
        text.push_str(&format!("local-hostname: \"{name}\"\n"));
    }
    text
}

fn write_files(root: &Root, files: &[iso9660::File]) -> anyhow::Result<()> {
    for file in files {
        root.write(Path::new(&file.name), &file.bytes, 0o600)
            .with_context(|| format!("write {} to the config drive", file.name))?;
    }
    Ok(())
}

fn write_image(node: &Path, room_bytes: u64, files: &[iso9660::File]) -> anyhow::Result<()> {
    let volume = iso9660::Volume { id: VOLUME_ID.into(), epoch_secs: 0 };
    let image = iso9660::to_vec(files, &volume).context("make the image of the config drive")?;
    ensure!(
        image.len() as u64 <= room_bytes,
        "the config drive needs {} bytes, but its partition has {room_bytes}",
        image.len()
    );
    File::options()
        .write(true)
        .open(node)
        .and_then(|mut file| {
            file.write_all(&image)?;
            file.sync_all()
        })
        .with_context(|| format!("write {}", node.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(user_data: Option<&str>, meta_data: Option<&str>) -> Linux {
        let payload = |text: Option<&str>| text.map(|text| text.to_owned().into());
        Linux {
            target_disk: recipe::DiskHints::default(),
            wipe: recipe::Wipe::Never,
            oci_url: String::new(),
            layout: Vec::new(),
            user_data: payload(user_data),
            meta_data: payload(meta_data),
            network_config: None,
        }
    }

    fn identity(serial: &str) -> Identity {
        Identity {
            job_id: "0198-job".into(),
            attempt_id: "a".into(),
            server_serial: serial.into(),
            boot_id: "b".into(),
            disk: None,
        }
    }

    #[test]
    fn an_instance_is_named_after_its_job_and_server() {
        for (serial, name) in [
            ("ABC 123/x", "local-hostname: \"abc-123-x\"\n"),
            ("--", ""),
            ("", ""),
            ("\u{e9}\u{e9}1", "local-hostname: \"1\"\n"),
        ] {
            let expected = format!("instance-id: \"0198-job\"\n{name}");
            assert_eq!(meta_data(&identity(serial)), expected, "{serial:?}");
        }
        assert!(
            meta_data(&identity(&"a".repeat(100))).contains(&format!("\"{}\"", "a".repeat(63)))
        );
    }

    #[test]
    fn a_raw_config_drive_reads_back_and_is_found_by_its_label() {
        let node = tempfile::NamedTempFile::new().unwrap();
        node.as_file().set_len(1 << 20).unwrap();
        let files = files(&linux(Some("#cloud-config\nhostname: a\n"), None), &identity("S1"));
        write_image(node.path(), 1 << 20, &files).unwrap();
        let image = iso9660::read(&std::fs::read(node.path()).unwrap()).unwrap();
        assert_eq!(image.volume_id, VOLUME_ID);
        let mut read = image.files;
        read.sort_by(|one, other| other.name.cmp(&one.name));
        assert_eq!(read, files);
        let argv = ["blkid", "-p", "-o", "value", "-s", "LABEL", &node.path().to_string_lossy()];
        let label = crate::command::run(&crate::command::Argv::new(argv)).unwrap();
        assert!(label.trim().eq_ignore_ascii_case("cidata"), "{label}");
        assert!(write_image(node.path(), 1024, &files).is_err());
    }

    #[test]
    fn given_meta_data_is_not_touched_and_user_data_is_never_missing() {
        let files = files(&linux(None, Some("instance-id: x\n")), &identity("S1"));
        let files: Vec<_> =
            files.iter().map(|file| (file.name.as_str(), file.bytes.as_slice())).collect();
        let expected: [(&str, &[u8]); 2] =
            [("user-data", b"#cloud-config\n{}\n"), ("meta-data", b"instance-id: x\n")];
        assert_eq!(files, expected);
    }
}
