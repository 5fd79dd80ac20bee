// SPDX-License-Identifier: AGPL-3.0-or-later
//! Removes entries from files of the image that would make the system wait for devices of the machine on which the
//! image was made: encrypted volumes, arrays, swap for resume, LVM's list of devices, and words that GRUB's own tools
//! would put on later command lines. Each removed entry is reported. Everything else is kept.
//!
//! Other modules write `/etc/fstab`, boot entries and `/etc/kernel/cmdline` anew. Not checked: mount units, and copies
//! of these files within an initramfs that is not generated again.

use std::path::Path;

use anyhow::Context;

use super::default_grub::{Settings, words};
use super::kernel_words;
use super::system::{self, CONFIG_BYTES_MAX, RESUME_CONFIGS, System};
use crate::beneath::Root;

const CRYPTTAB: &str = "etc/crypttab";
const MDADM: &[&str] = &["etc/mdadm/mdadm.conf", "etc/mdadm.conf"];
/// If this file exists, LVM uses only the devices that it lists (lvmdevices(8)).
const LVM_DEVICES: &str = "etc/lvm/devices/system.devices";
const GRUB_DEFAULTS: &str = "etc/default/grub";
/// The last file of its directory, which Debian's grub-mkconfig reads after `/etc/default/grub`.
const GRUB_DEFAULTS_LAST: &str = "etc/default/grub.d/zz-installed.cfg";
/// The variables that grub-mkconfig puts on command lines.
const GRUB_LINES: &[&str] =
    &["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX_RECOVERY"];
/// The size of the file that grub-editenv(1) creates. GRUB writes only to a file of this size.
const GRUBENV_BYTES: usize = 1024;
const GRUBENV_BEGIN: &str = "# GRUB Environment Block\n";

/// Removes the entries; `cmdline` is the command line of the installed system.
pub fn remove(
    root: &Root,
    system: &System,
    cmdline: &str,
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    if !system.dropped_words.is_empty() {
        say(&format!(
            "removed from the kernel command line, as it names devices or addresses of another \
             machine: {}",
            system.dropped_words.join(" ")
        ));
    }
    grub_defaults(root, &system.settings)?;
    grubenv(root, system.grub_dir, cmdline)?;
    rewrite(root, CRYPTTAB, without_devices, say)?;
    for path in MDADM {
        rewrite(root, path, without_arrays, say)?;
    }
    for path in RESUME_CONFIGS {
        rewrite(root, path, without_resume, say)?;
    }
    if root.read(Path::new(LVM_DEVICES), CONFIG_BYTES_MAX).context("read LVM's devices")?.is_some()
    {
        say(&format!("removed /{LVM_DEVICES}: it lists devices of another machine"));
        root.remove_file(Path::new(LVM_DEVICES))
            .with_context(|| format!("remove /{LVM_DEVICES}"))?;
    }
    Ok(())
}

/// Writes a file without the entries about other machines and reports them. A file without such entries is unchanged.
fn rewrite(
    root: &Root,
    path: &str,
    split: fn(&str) -> (String, Vec<String>),
    say: &dyn Fn(&str),
) -> anyhow::Result<()> {
    let (kept, removed) = split(&system::text(root, path)?);
    if removed.is_empty() {
        return Ok(());
    }
    say(&format!("removed from /{path}: {}", removed.join("; ")));
    write(root, path, &kept)
}

fn write(root: &Root, path: &str, text: &str) -> anyhow::Result<()> {
    root.write(Path::new(path), text.as_bytes(), 0o644).with_context(|| format!("write /{path}"))
}

/// crypttab(5) without volumes on block devices: no partition of a layout is encrypted. A volume in a file of the
/// image is kept.
fn without_devices(text: &str) -> (String, Vec<String>) {
    let is_foreign = |line: &str| {
        let device = line.split_whitespace().nth(1).unwrap_or_default();
        let is_by_tag = ["UUID=", "PARTUUID=", "LABEL=", "PARTLABEL=", "ID="]
            .iter()
            .any(|tag| device.to_ascii_uppercase().starts_with(tag));
        !line.starts_with('#') && (is_by_tag || device.starts_with("/dev/"))
    };
    split_lines(text, is_foreign, |line| {
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    })
}

/// mdadm.conf(5) without arrays. A line that begins with a blank continues the previous line.
fn without_arrays(text: &str) -> (String, Vec<String>) {
    let mut is_array = false;
    let is_foreign = |line: &str| {
        if !line.starts_with([' ', '\t']) {
            let word = line.split_whitespace().next().unwrap_or_default();
            is_array = word.len() >= 3 && "ARRAY".starts_with(&word.to_ascii_uppercase());
        }
        is_array
    };
    split_lines(text, is_foreign, |line| line.trim().to_owned())
}

fn without_resume(text: &str) -> (String, Vec<String>) {
    let is_foreign = |line: &str| {
        let mut settings = Settings::default();
        settings.read(line);
        settings.get("RESUME").is_some_and(names_a_swap)
    };
    let (mut kept, removed) = split_lines(text, is_foreign, |line| line.trim().to_owned());
    if !removed.is_empty() {
        kept.push_str("RESUME=none\n");
    }
    (kept, removed)
}

fn names_a_swap(value: &str) -> bool {
    !matches!(value, "" | "none" | "auto")
}

fn split_lines(
    text: &str,
    mut is_foreign: impl FnMut(&str) -> bool,
    told: fn(&str) -> String,
) -> (String, Vec<String>) {
    let mut kept = String::new();
    let mut removed = Vec::new();
    for line in text.split_inclusive('\n') {
        if is_foreign(line) {
            removed.push(told(line));
        } else {
            kept.push_str(line);
        }
    }
    (kept, removed)
}

/// Overrides GRUB's defaults: otherwise the next update-grub or grub2-mkconfig would restore the words.
fn grub_defaults(root: &Root, settings: &Settings) -> anyhow::Result<()> {
    let mut lines = String::new();
    for name in GRUB_LINES {
        let (kept, gone) = kernel_words::split(words(settings.get(name).unwrap_or_default()));
        if !gone.is_empty() {
            let value = kernel_words::line(&kept).replace('\'', r"'\''");
            lines.push_str(&format!("{name}='{value}'\n"));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let text = format!(
        "# Without what named devices of the machine that the image was made on; written when this system \
         was installed.\n{lines}"
    );
    let before = system::text(root, GRUB_DEFAULTS)?;
    write(root, GRUB_DEFAULTS, &format!("{}\n{text}", before.trim_end()))?;
    let dir = root.list(Path::new("etc/default/grub.d")).context("list /etc/default/grub.d")?;
    match dir.iter().any(|name| name.ends_with(".cfg")) {
        true => write(root, GRUB_DEFAULTS_LAST, &text),
        false => Ok(()),
    }
}

/// Updates grubenv: `kernelopts` is the command line of later kernels of EL 8. Saved entries are removed.
fn grubenv(root: &Root, grub_dir: &str, cmdline: &str) -> anyhow::Result<()> {
    let path = format!("boot/{grub_dir}/grubenv");
    let before = system::text(root, &path)?;
    match new_grubenv(&before, cmdline) {
        Some(after) if after != before => write(root, &path, &after),
        _ => Ok(()),
    }
}

/// Returns `None` if `before` is not an environment block, or if the result would not fit in one.
fn new_grubenv(before: &str, cmdline: &str) -> Option<String> {
    let mut text = GRUBENV_BEGIN.to_owned();
    for line in before.strip_prefix(GRUBENV_BEGIN)?.lines() {
        let name = line.split('=').next().unwrap_or_default();
        match name {
            "saved_entry" | "next_entry" => {}
            "kernelopts" => {
                text.push_str(&format!("kernelopts={}\n", cmdline.replace('\\', r"\\")));
            }
            // The end of the block.
            _ if line.chars().all(|letter| letter == '#') => {}
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    let padding = GRUBENV_BYTES.checked_sub(text.len())?;
    Some(text + &"#".repeat(padding))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Runs the removal twice on these files, and returns the messages of the first run.
    fn removed(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        let said = RefCell::new(Vec::new());
        let say = |line: &str| said.borrow_mut().push(line.to_owned());
        let once =
            || remove(&root, &system::read(&root).unwrap(), "root=UUID=new ro", &say).unwrap();
        once();
        let first = said.borrow().clone();
        let tree = || files.iter().map(|(path, _)| std::fs::read(dir.path().join(path)).ok());
        let before: Vec<_> = tree().collect();
        once();
        assert_eq!(*said.borrow(), first, "the second run said more");
        assert_eq!(tree().collect::<Vec<_>>(), before);
        (dir, first)
    }

    #[test]
    fn entries_that_name_devices_of_another_machine_go_and_the_rest_stays() {
        let crypttab = "# target source key options\n\
            luks-1 UUID=0123 none discard\nswap /dev/sda3 /dev/urandom swap\nvault /srv/vault.img none\n";
        let mdadm = "MAILADDR root\nARRAY /dev/md0 UUID=1:2\n   devices=/dev/sda1,/dev/sdb1\nHOMEHOST <system>\n";
        let (dir, said) = removed(&[
            ("etc/crypttab", crypttab),
            ("etc/mdadm/mdadm.conf", mdadm),
            ("etc/initramfs-tools/conf.d/resume", "RESUME=UUID=0123-swap\n"),
            ("etc/initramfs-tools/initramfs.conf", "MODULES=most\nRESUME=auto\n"),
            ("etc/lvm/devices/system.devices", "IDTYPE=sys_wwid IDNAME=x\n"),
        ]);
        assert_eq!(
            said,
            [
                "removed from /etc/crypttab: luks-1 UUID=0123; swap /dev/sda3",
                "removed from /etc/mdadm/mdadm.conf: ARRAY /dev/md0 UUID=1:2; \
                 devices=/dev/sda1,/dev/sdb1",
                "removed from /etc/initramfs-tools/conf.d/resume: RESUME=UUID=0123-swap",
                "removed /etc/lvm/devices/system.devices: it lists devices of another machine",
            ]
        );
        let text = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(
            text("etc/crypttab"),
            "# target source key options\nvault /srv/vault.img none\n"
        );
        assert_eq!(text("etc/mdadm/mdadm.conf"), "MAILADDR root\nHOMEHOST <system>\n");
        assert_eq!(text("etc/initramfs-tools/conf.d/resume"), "RESUME=none\n");
        assert!(system::resumes(&Root::open(dir.path()).unwrap()).unwrap());
        assert_eq!(text("etc/initramfs-tools/initramfs.conf"), "MODULES=most\nRESUME=auto\n");
        assert!(!dir.path().join("etc/lvm/devices/system.devices").exists());
    }

    #[test]
    fn an_image_without_leftovers_is_not_touched() {
        let files = [
            ("etc/crypttab", "# <target name> <source device>\n"),
            ("etc/mdadm.conf", "DEVICE partitions\n"),
            ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"console=ttyS0\"\n"),
        ];
        let (dir, said) = removed(&files);
        assert_eq!(said, [""; 0]);
        for (path, text) in &files {
            assert_eq!(std::fs::read_to_string(dir.path().join(path)).unwrap(), *text);
        }
    }

    #[test]
    fn grubs_own_tools_do_not_put_the_words_back() {
        let (dir, said) = removed(&[
            (
                "etc/default/grub",
                "GRUB_CMDLINE_LINUX=\"rd.lvm.lv=rhel/root console=ttyS0 dyndbg=\\\"a b\\\"\"\nGRUB_TIMEOUT=1\n",
            ),
            (
                "etc/default/grub.d/50-cloud.cfg",
                "GRUB_CMDLINE_LINUX_DEFAULT='quiet root=LABEL=x'\n",
            ),
            (
                "boot/grub2/grubenv",
                "# GRUB Environment Block\nsaved_entry=old-4.18\nkernelopts=root=/dev/mapper/rhel-root ro \
                 \nboot_success=1\n#####",
            ),
        ]);
        assert_eq!(
            said,
            [
                "removed from the kernel command line, as it names devices or addresses of another machine: \
              rd.lvm.lv=rhel/root root=LABEL=x"
            ]
        );
        let system = system::read(&Root::open(dir.path()).unwrap()).unwrap();
        assert_eq!(system.settings.get("GRUB_CMDLINE_LINUX"), Some("console=ttyS0 dyndbg=\"a b\""));
        assert_eq!(system.settings.get("GRUB_CMDLINE_LINUX_DEFAULT"), Some("quiet"));
        assert_eq!(system.settings.get("GRUB_TIMEOUT"), Some("1"));
        assert_eq!(system.dropped_words, [""; 0]);
        let grubenv = std::fs::read_to_string(dir.path().join("boot/grub2/grubenv")).unwrap();
        assert_eq!(grubenv.len(), GRUBENV_BYTES);
        let lines: Vec<_> = grubenv.lines().take(3).collect();
        let expected =
            ["# GRUB Environment Block", "kernelopts=root=UUID=new ro", "boot_success=1"];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_no_environment_block_stays() {
        let empty = "# GRUB Environment Block\n# WARNING: Do not edit\n".to_owned();
        let empty = empty.clone() + &"#".repeat(GRUBENV_BYTES - empty.len());
        assert_eq!(new_grubenv(&empty, "x"), Some(empty.clone()));
        assert_eq!(new_grubenv("hello", "x"), None);
        assert_eq!(new_grubenv("", "x"), None);
        let long = "x".repeat(1000);
        assert_eq!(new_grubenv("# GRUB Environment Block\nkernelopts=y\n", &long), None);
    }
}
