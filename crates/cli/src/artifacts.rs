// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal artifact`: root filesystems as OCI artifacts (image-spec 1.1, "Guidelines for Artifact
//! Usage"): an empty config, one layer, `artifactType` tells what it is.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use oci::{Digest, media_type};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::args::{Artifact, Output};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{show, text};

const HEAD: [&str; 3] = ["REPOSITORY", "TAG", "DIGEST"];
const BUFFER: usize = 1 << 20;

pub fn run(client: &Client, format: Output, command: Artifact) -> Result<(), Failure> {
    match command {
        Artifact::Push { name, file } => {
            let pushed = push(client, &name, &file)?;
            show(format, &pushed, &HEAD, |pushed| vec![row(pushed)]);
        }
        Artifact::List => {
            let list = client.get("/api/v1/artifacts")?;
            show(format, &list, &HEAD, |list| {
                list["artifacts"].as_array().into_iter().flatten().map(row).collect()
            });
        }
    }
    Ok(())
}

fn row(artifact: &Value) -> Vec<String> {
    ["repository", "tag", "digest"].iter().map(|key| text(artifact, &format!("/{key}"))).collect()
}

fn push(client: &Client, name: &str, path: &Path) -> Result<Value, Failure> {
    let (repository, tag) = name
        .rsplit_once(':')
        .filter(|(repository, tag)| oci::is_repository(repository) && oci::is_tag(tag))
        .ok_or_else(|| anyhow!("{name:?} is not REPOSITORY:TAG, such as os-images/debian:13"))?;
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let layer_type = layer_type(&mut file).with_context(|| format!("read {}", path.display()))?;
    let size = file.metadata().with_context(|| format!("read {}", path.display()))?.len();
    let digest = hash(&mut file, size).with_context(|| format!("read {}", path.display()))?;

    put_blob(client, repository, &digest, size, "upload", &mut file)?;
    let empty = b"{}".as_slice();
    let config = Digest::of(empty);
    put_blob(client, repository, &config, 2, "", &mut &*empty)?;
    let title = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": media_type::ROOTFS,
        "config": {"mediaType": media_type::EMPTY, "digest": config.to_string(), "size": 2},
        "layers": [{
            "mediaType": layer_type,
            "digest": digest.to_string(),
            "size": size,
            "annotations": {"org.opencontainers.image.title": title},
        }],
    });
    let bytes = serde_json::to_vec(&manifest).map_err(anyhow::Error::from)?;
    let place = format!("/v2/{repository}/manifests/{tag}");
    client.put_bytes(&place, media_type::MANIFEST, bytes.len() as u64, &mut bytes.as_slice())?;
    Ok(json!({
        "repository": repository,
        "tag": tag,
        "digest": Digest::of(&bytes).to_string(),
        "size": size,
    }))
}

/// What a file is by its first bytes, whatever its name says.
fn layer_type(file: &mut File) -> anyhow::Result<&'static str> {
    let mut head = [0; 512];
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    file.rewind()?;
    match &head {
        [0x1f, 0x8b, ..] => Ok(media_type::LAYER_TAR_GZIP),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(media_type::LAYER_TAR_ZSTD),
        _ if &head[257..262] == b"ustar" => Ok(media_type::LAYER_TAR),
        _ => Err(anyhow!("this is not a tar file, plain or compressed with gzip or zstd")),
    }
}

fn hash(file: &mut File, size: u64) -> anyhow::Result<Digest> {
    let bar = bar("hash", size);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        bar.inc(count as u64);
    }
    bar.finish_and_clear();
    file.rewind()?;
    Ok(format!("sha256:{}", hex::encode(hasher.finalize())).parse()?)
}

/// Uploads a blob unless it is there.
fn put_blob(
    client: &Client,
    repository: &str,
    digest: &Digest,
    size: u64,
    label: &'static str,
    reader: &mut dyn Read,
) -> Result<(), Failure> {
    if client.has(&format!("/v2/{repository}/blobs/{digest}"))? {
        return Ok(());
    }
    let location = client.start_upload(&format!("/v2/{repository}/blobs/uploads/"))?;
    let joint = if location.contains('?') { '&' } else { '?' };
    let bar = if label.is_empty() { ProgressBar::hidden() } else { bar(label, size) };
    let mut reader = bar.wrap_read(reader);
    client.put_bytes(
        &format!("{location}{joint}digest={digest}"),
        "application/octet-stream",
        size,
        &mut reader,
    )?;
    bar.finish_and_clear();
    Ok(())
}

/// A bar on a terminal; nothing where stderr is a file.
fn bar(label: &'static str, size: u64) -> ProgressBar {
    let template = "{prefix:>8} [{bar:40}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style).with_prefix(label)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_what_its_first_bytes_say() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (bytes, expected) in [
            (vec![0x1f, 0x8b, 8, 0], Some(media_type::LAYER_TAR_GZIP)),
            (vec![0x28, 0xb5, 0x2f, 0xfd, 0], Some(media_type::LAYER_TAR_ZSTD)),
            (tar, Some(media_type::LAYER_TAR)),
            (b"QFI\xfb".to_vec(), None),
            (Vec::new(), None),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            assert_eq!(layer_type(&mut file).ok(), expected, "{bytes:x?}");
            assert_eq!(file.stream_position().unwrap(), 0);
        }
    }
}
