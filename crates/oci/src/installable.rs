// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whether an image can be installed as a root filesystem, as far as its manifest shows it before any layer is read.

use crate::layer::compression;
use crate::not_installable::NotInstallable;
use crate::{Descriptor, Manifest, media_type};

/// Configurations that name a platform (image-spec, config.md).
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Artifact types of images with a root filesystem: our own, container images, and the types that `oras push` writes
/// if the user gives none, since version 1.1 and before.
const ARTIFACT_TYPES: [&str; 6] = [
    media_type::ROOTFS,
    media_type::EMPTY,
    "application/vnd.unknown.artifact.v1",
    "application/vnd.unknown.config.v1+json",
    CONFIG,
    DOCKER_CONFIG,
];

/// Refuses a manifest whose own fields show that it is something else, such as a Windows image, an ISO, a chart or a
/// signature, and a manifest with a layer that is not an archive.
pub fn check_manifest(manifest: &Manifest) -> Result<(), NotInstallable> {
    if let Some(kind) = manifest.artifact_type()
        && !ARTIFACT_TYPES.contains(&kind)
    {
        return Err(NotInstallable(format!(
            "the artifact is {kind:?}, and install-linux.target writes root filesystems; push one as {}",
            media_type::ROOTFS
        )));
    }
    if manifest.layers.is_empty() {
        let why =
            "the artifact has no layer: push a root filesystem as tar, tar+gzip or tar+zstd".into();
        return Err(NotInstallable(why));
    }
    match manifest.layers.iter().find(|layer| !compression::is_archive(&layer.media_type)) {
        None => Ok(()),
        Some(layer) => Err(NotInstallable(format!(
            "layer {} is {:?}, which is no root filesystem; push it as {} (or +gzip, +zstd)",
            layer.digest,
            layer.media_type,
            media_type::LAYER_TAR
        ))),
    }
}

/// The configuration, if it is of a kind that names a platform. `shoal artifact push` creates images without one.
pub fn platform_config(manifest: &Manifest) -> Option<&Descriptor> {
    let names_platform =
        |config: &&Descriptor| [CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str());
    manifest.config.as_ref().filter(names_platform)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn manifest(artifact_type: Option<&str>, config: &str, layers: &[&str]) -> Manifest {
        let part = |media_type: &str| {
            serde_json::json!({
                "mediaType": media_type, "digest": Digest::of(b"x").as_str(), "size": 1
            })
        };
        let document = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": artifact_type,
            "config": part(config),
            "layers": layers.iter().map(|layer| part(layer)).collect::<Vec<_>>(),
        });
        Manifest::parse(document.to_string().as_bytes(), media_type::MANIFEST).unwrap()
    }

    #[test]
    fn a_manifest_tells_whether_it_is_a_root_filesystem() {
        let tar = media_type::LAYER_TAR;
        let docker = "application/vnd.docker.image.rootfs.diff.tar";
        let unknown = "application/vnd.unknown.config.v1+json";
        for (artifact_type, config, layers, refusal) in [
            (Some(media_type::ROOTFS), media_type::EMPTY, vec![tar], ""),
            (None, CONFIG, vec![tar, media_type::LAYER_TAR_GZIP, media_type::LAYER_TAR_ZSTD], ""),
            (None, DOCKER_CONFIG, vec![docker], ""),
            (None, unknown, vec![tar], ""),
            (Some("application/vnd.unknown.artifact.v1"), media_type::EMPTY, vec![tar], ""),
            (Some(""), CONFIG, vec![tar], ""),
            (Some(media_type::ISO), media_type::EMPTY, vec![tar], "the artifact is"),
            (Some(media_type::WIM), media_type::EMPTY, vec![tar], "the artifact is"),
            (Some(media_type::DISK), media_type::EMPTY, vec![tar], "the artifact is"),
            (None, "application/vnd.cncf.helm.config.v1+json", vec![tar], "the artifact is"),
            (Some("application/spdx+json"), CONFIG, vec![tar], "the artifact is"),
            (None, CONFIG, vec![], "has no layer"),
            (None, CONFIG, vec![tar, "application/vnd.in-toto+json"], "is no root filesystem"),
            (None, CONFIG, vec![media_type::OCTET_STREAM], "is no root filesystem"),
            (None, CONFIG, vec!["application/x-iso9660-image"], "is no root filesystem"),
        ] {
            let told = check_manifest(&manifest(artifact_type, config, &layers));
            let told = told.err().map(|why| why.0).unwrap_or_default();
            let case = format!("{artifact_type:?} {config} {layers:?}: {told:?}");
            assert_eq!(told.is_empty(), refusal.is_empty(), "{case}");
            assert!(told.contains(refusal), "{case}");
        }
    }
}
