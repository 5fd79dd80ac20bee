// SPDX-License-Identifier: AGPL-3.0-or-later
//! Pushing a file as an OCI artifact (image-spec 1.1, "Guidelines for Artifact Usage"): an empty config, one layer,
//! and its kind in `artifactType`.

use std::path::Path;

use anyhow::{Context, anyhow};
use oci::{Digest, Repository, Tag, annotation, media_type};
use serde_json::{Value, json};

use super::bar::bar;
use super::kind::{Compression, Kind, Measured, measure, recognize};
use super::upload::upload;
use crate::client::Client;
use crate::failure::Failure;
use crate::text_file;

const EMPTY: &[u8] = b"{}";

pub fn push(
    client: &Client,
    name: &str,
    path: &Path,
    told: Option<Kind>,
) -> Result<Value, Failure> {
    let (repository, tag) = parse(name)?;
    let mut file = text_file::open(path)?;
    let reading = || format!("read {}", path.display());
    let (kind, compression) = recognize(&mut file, told).with_context(reading)?;
    let size = file.metadata().with_context(reading)?.len();
    let bar = bar("hash", size);
    let measured = measure(&mut file, compression, &bar).with_context(reading)?;
    bar.finish_and_clear();

    upload(client, &repository, &measured.digest, &mut file)?;
    put_empty(client, &repository)?;
    let title = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let manifest = manifest(kind, compression, &measured, title.as_deref().unwrap_or_default());
    let bytes = serde_json::to_vec(&manifest).map_err(anyhow::Error::from)?;
    let place = format!("/v2/{repository}/manifests/{tag}");
    client.put_bytes(&place, media_type::MANIFEST, bytes.len() as u64, &mut bytes.as_slice())?;
    Ok(json!({
        "repository": repository.as_str(),
        "tag": tag.as_str(),
        "digest": Digest::of(&bytes).as_str(),
        "artifact_type": kind.artifact_type(),
        "size": measured.size,
        "uncompressed_size": measured.uncompressed_size,
    }))
}

/// `REPOSITORY:TAG`.
pub fn parse(name: &str) -> Result<(Repository, Tag), Failure> {
    name.rsplit_once(':')
        .and_then(|(repository, tag)| Some((repository.parse().ok()?, tag.parse().ok()?)))
        .ok_or_else(|| {
            anyhow!("{name:?} is not REPOSITORY:TAG, such as os-images/debian:13").into()
        })
}

fn manifest(kind: Kind, compression: Compression, measured: &Measured, title: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": kind.artifact_type(),
        "config": {
            "mediaType": media_type::EMPTY,
            "digest": Digest::of(EMPTY).as_str(),
            "size": EMPTY.len(),
        },
        "layers": [{
            "mediaType": kind.layer_type(compression),
            "digest": measured.digest.as_str(),
            "size": measured.size,
            "annotations": {
                annotation::TITLE: title,
                annotation::COMPRESSION: compression.name(),
                annotation::UNCOMPRESSED_SIZE: measured.uncompressed_size.to_string(),
                annotation::UNCOMPRESSED_DIGEST: measured.uncompressed_digest.as_str(),
            },
        }],
    })
}

fn put_empty(client: &Client, repository: &Repository) -> Result<(), Failure> {
    let digest = Digest::of(EMPTY);
    if client.has(&format!("/v2/{repository}/blobs/{digest}"))? {
        return Ok(());
    }
    let location = client.start_upload(&format!("/v2/{repository}/blobs/uploads/"))?;
    let place = format!("{location}?digest={digest}");
    client.put_bytes(&place, media_type::OCTET_STREAM, EMPTY.len() as u64, &mut &*EMPTY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_tells_what_comes_out() {
        let measured = Measured {
            digest: Digest::of(b"compressed"),
            size: 10,
            uncompressed_digest: Digest::of(b"plain"),
            uncompressed_size: 5,
        };
        let document = manifest(Kind::Disk, Compression::Zstd, &measured, "disk.raw.zst");
        let bytes = serde_json::to_vec(&document).unwrap();
        let parsed = oci::Manifest::parse(&bytes, media_type::MANIFEST).unwrap();
        assert_eq!(parsed.artifact_type(), Some("application/vnd.shoal.disk.v1"));
        assert_eq!(parsed.layers[0].media_type, "application/zstd");
        let expected = [
            ("io.shoal.compression", "zstd".to_owned()),
            ("io.shoal.uncompressed.digest", Digest::of(b"plain").to_string()),
            ("io.shoal.uncompressed.size", "5".to_owned()),
            ("org.opencontainers.image.title", "disk.raw.zst".to_owned()),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(parsed.layers[0].annotations, expected.into());
    }

    #[test]
    fn a_name_has_a_repository_and_a_tag() {
        assert!(parse("os-images/debian:13").is_ok());
        for bad in ["", "debian", ":13", "debian:", "Debian:13", "a:b:c", "../a:1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
