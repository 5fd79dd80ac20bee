// SPDX-License-Identifier: AGPL-3.0-or-later
//! Image manifests and indexes, parsed strictly: a document that could be read as either is refused
//! (GHSA-qq97-vm5h-rrhg).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::Digest;
use crate::shape::{Seen, top_level};

/// Media types that Shoal writes or understands.
pub mod media_type {
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const LAYER_TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const OCTET_STREAM: &str = "application/octet-stream";
    /// `artifactType` of a root filesystem in a tar file; its layers are layers of a container image.
    pub const ROOTFS: &str = "application/vnd.shoal.rootfs.v1";
    /// `artifactType` of a Windows image; its one layer is the WIM file.
    pub const WIM: &str = "application/vnd.shoal.wim.v1";
    /// `artifactType` of a raw disk image, which is its one layer.
    pub const DISK: &str = "application/vnd.shoal.disk.v1";
    /// `artifactType` of installation media.
    pub const ISO: &str = "application/vnd.shoal.iso.v1";
}

/// Annotations on the layers of OS artifacts.
pub mod annotation {
    pub const TITLE: &str = "org.opencontainers.image.title";
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// The size of the layer's decompressed data, in decimal.
    pub const UNCOMPRESSED_SIZE: &str = "io.shoal.uncompressed.size";
    /// The digest of the layer's decompressed data.
    pub const UNCOMPRESSED_DIGEST: &str = "io.shoal.uncompressed.digest";
    /// How the layer is compressed: `none`, `gzip`, `zstd` or `xz`.
    pub const COMPRESSION: &str = "io.shoal.compression";
}

/// The kind of a document, on which its media type and its fields must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    Image,
    Index,
}

/// The fields that decide how a document is read. Only this spelling is accepted (see [`Manifest::parse`]).
const FIELDS: [&str; 8] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
];

/// The type, digest and size of some content. `null` for an optional field means that it is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, deserialize_with = "annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index, as its media type says. Go programs write an empty list or map that was never set as
/// `null` (`encoding/json`), so `null` for an optional field means that it is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, deserialize_with = "null_as_absent")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_as_absent", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "null_as_absent", skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "annotations", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidManifest(String);

impl Manifest {
    /// Parses a manifest that was sent with this `content_type`.
    pub fn parse(bytes: &[u8], content_type: &str) -> Result<Manifest, InvalidManifest> {
        let invalid = |why: String| InvalidManifest(why);
        let fields = top_level(bytes).map_err(|error| invalid(format!("not JSON: {error}")))?;
        // Go's parser accepts `Layers` for `layers`. A field that this parser ignores must not be read by others.
        for (key, _) in &fields {
            let is_disguised =
                |field: &&&str| field.eq_ignore_ascii_case(key) && **field != key.as_str();
            if let Some(field) = FIELDS.iter().find(is_disguised) {
                return Err(invalid(format!("{key:?} is not how {field:?} is written")));
            }
        }
        let seen = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, seen)| *seen);
        let has = |name: &str| seen(name) == Some(Seen::Value);
        let is_image = has("layers") || has("config");
        if has("manifests") && is_image {
            return Err(invalid("a document is a manifest or an index, not both".into()));
        }
        // An index without manifests may have `null` there; so may an image.
        let is_index = seen("manifests").is_some() && !is_image;
        // Parsed from the bytes again, not from the fields above: this refuses a duplicate field.
        let mut manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("not a manifest: {error}")))?;
        if manifest.schema_version != 2 {
            return Err(invalid("schemaVersion is not 2".into()));
        }
        if manifest.media_type.is_empty() {
            manifest.media_type = content_type.to_owned();
        }
        if manifest.media_type != content_type {
            return Err(invalid(format!(
                "mediaType is {:?}, but it was sent as {content_type:?}",
                manifest.media_type
            )));
        }
        let says_index = [media_type::INDEX, media_type::DOCKER_INDEX].contains(&content_type);
        let says_manifest =
            [media_type::MANIFEST, media_type::DOCKER_MANIFEST].contains(&content_type);
        if (says_index && !is_index) || (says_manifest && is_index) {
            return Err(invalid(format!("this is not a document of type {content_type}")));
        }
        if says_manifest && manifest.config.is_none() {
            return Err(invalid("a manifest needs a config".into()));
        }
        Ok(manifest)
    }

    pub fn kind(&self) -> ManifestKind {
        match self.media_type.as_str() {
            media_type::INDEX | media_type::DOCKER_INDEX => ManifestKind::Index,
            _ if !self.manifests.is_empty() => ManifestKind::Index,
            _ => ManifestKind::Image,
        }
    }

    /// The document's type in the referrers API (distribution-spec, Listing Referrers).
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type
            .as_deref()
            .filter(|text| !text.is_empty())
            .or(self.config.as_ref().map(|config| config.media_type.as_str()))
    }

    /// Blobs that must exist before this manifest can be pushed.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers)
    }
}

/// Reads `null` as an absent field.
fn null_as_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads annotations, leaving out those with the value `null`.
fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let all: BTreeMap<String, Option<String>> = null_as_absent(deserializer)?;
    Ok(all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_one_thing() {
        let digest = Digest::of(b"");
        let descriptor = format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":0}}"#);
        let image =
            format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{descriptor}]}}"#);
        let both =
            format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
        let traversal =
            r#"{"schemaVersion":2,"config":{"mediaType":"x/y","digest":"sha256:../x","size":0}}"#;
        for (document, content_type, is_valid) in [
            (image.as_str(), media_type::MANIFEST, true),
            (&index, media_type::INDEX, true),
            (&image, media_type::INDEX, false),
            (&index, media_type::MANIFEST, false),
            (&both, media_type::MANIFEST, false),
            (&both, media_type::INDEX, false),
            (traversal, media_type::MANIFEST, false),
            (r#"{"schemaVersion":1,"manifests":[]}"#, media_type::INDEX, false),
            (r#"{"schemaVersion":2,"mediaType":"a/b","manifests":[]}"#, media_type::INDEX, false),
            ("{", media_type::INDEX, false),
            (&image.replace("layers", "Layers"), media_type::MANIFEST, false),
            (
                &image.replace("{\"schema", "{\"Manifests\":[],\"schema"),
                media_type::MANIFEST,
                false,
            ),
            (&image.replace("\"layers\"", "\"layers\":[],\"layers\""), media_type::MANIFEST, false),
            (&image.replace("\"size\":0", "\"size\":-1"), media_type::MANIFEST, false),
        ] {
            let parsed = Manifest::parse(document.as_bytes(), content_type);
            assert_eq!(parsed.is_ok(), is_valid, "{document} as {content_type}");
        }
    }

    #[test]
    fn null_is_taken_as_absent_where_the_field_is_optional() {
        let digest = Digest::of(b"");
        let image = serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "x/y", "digest": digest.as_str(), "size": 0},
            "layers": [{"mediaType": "x/z", "digest": digest.as_str(), "size": 0}],
        });
        let index = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{"mediaType": "x/z", "digest": digest.as_str(), "size": 0}],
        });
        // Whether an image, an index and a descriptor of each may have `null` there.
        for (place, of_image, of_index) in [
            ("/schemaVersion", false, false),
            ("/mediaType", true, true),
            ("/artifactType", true, true),
            ("/config", false, true),
            ("/layers", true, true),
            // An index without manifests; an image that is not an index.
            ("/manifests", true, true),
            ("/subject", true, true),
            ("/annotations", true, true),
            ("/annotations/a", true, true),
            ("/unknown", true, true),
            ("/layers/0", false, true),
            ("/layers/0/mediaType", false, true),
            ("/layers/0/digest", false, true),
            ("/layers/0/size", false, true),
            ("/layers/0/annotations", true, true),
            ("/layers/0/artifactType", true, true),
            ("/layers/0/urls", true, true),
            ("/layers/0/data", true, true),
            ("/layers/0/platform", true, true),
            ("/manifests/0", true, false),
            ("/manifests/0/digest", true, false),
            ("/manifests/0/annotations", true, true),
            ("/manifests/0/artifactType", true, true),
            ("/manifests/0/platform", true, true),
            ("/config/annotations", true, true),
            ("/config/digest", false, true),
        ] {
            for (base, content_type, is_valid) in
                [(&image, media_type::MANIFEST, of_image), (&index, media_type::INDEX, of_index)]
            {
                let mut document = base.clone();
                let (parent, name) = place.rsplit_once('/').unwrap();
                if parent == "/annotations" {
                    document["annotations"] = serde_json::json!({"b": "c"});
                }
                match document.pointer_mut(parent) {
                    Some(serde_json::Value::Array(list)) => list[0] = serde_json::Value::Null,
                    Some(parent) => parent[name] = serde_json::Value::Null,
                    // A field that this kind of document does not have.
                    None => continue,
                }
                let text = document.to_string();
                let parsed = Manifest::parse(text.as_bytes(), content_type);
                assert_eq!(parsed.is_ok(), is_valid, "{place} in {text}: {parsed:?}");
            }
        }
        let empty = r#"{"schemaVersion":2,"manifests":null}"#;
        let parsed = Manifest::parse(empty.as_bytes(), media_type::INDEX).unwrap();
        assert_eq!((parsed.kind(), parsed.manifests.len()), (ManifestKind::Index, 0));
        assert!(Manifest::parse(empty.as_bytes(), media_type::MANIFEST).is_err());
        // A document of both kinds is still refused, whatever else is null.
        let mut both = image.clone();
        both["manifests"] = serde_json::json!([]);
        assert!(Manifest::parse(both.to_string().as_bytes(), media_type::MANIFEST).is_err());
        let twice = image.to_string().replace("\"layers\"", "\"layers\":null,\"layers\"");
        assert!(Manifest::parse(twice.as_bytes(), media_type::MANIFEST).is_err());
    }

    #[test]
    fn a_document_that_is_nested_too_deeply_is_refused_and_a_wide_one_is_read_at_once() {
        let digest = Digest::of(b"");
        let with = |extra: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"x/y","digest":"{digest}","size":0}},"extra":{extra}}}"#
            )
        };
        for (depth, is_valid) in [(100, true), (200, false), (2 << 20, false)] {
            let text = with(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
            let parsed = Manifest::parse(text.as_bytes(), media_type::MANIFEST);
            assert_eq!(parsed.is_ok(), is_valid, "{depth} levels");
        }
        let wide = with(&format!("[{}[]]", "[[[]]],".repeat(600_000)));
        assert!(Manifest::parse(wide.as_bytes(), media_type::MANIFEST).is_ok());
    }

    proptest::proptest! {
        /// Damage at any position leads to an error, or to a document with valid digests.
        #[test]
        fn a_damaged_document_is_refused_or_whole(
            place in 0..300_usize,
            by in "\\PC{0,6}",
            length in 0..6_usize,
        ) {
            let digest = Digest::of(b"");
            let descriptor = format!(r#"{{"mediaType":"x/y","digest":"{digest}","size":0}}"#);
            let mut text =
                format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
            let start = place.min(text.len());
            let end = (start + length).min(text.len());
            text.replace_range(start..end, &by);
            if let Ok(manifest) = Manifest::parse(text.as_bytes(), media_type::MANIFEST) {
                for part in manifest.blobs() {
                    let again: Result<Digest, _> = part.digest.as_str().parse();
                    proptest::prop_assert_eq!(again.as_ref(), Ok(&part.digest));
                }
            }
        }

        #[test]
        fn a_reference_that_is_read_is_written_the_same(
            text in "[a-z0-9.:]{1,12}/[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{1,10})?|\\PC{0,40}",
        ) {
            if let Ok(reference) = text.parse::<crate::Reference>() {
                proptest::prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
