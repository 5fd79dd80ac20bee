// SPDX-License-Identifier: AGPL-3.0-or-later
//! The platform of an image: the operating system and processor that it is for. Pure.

use serde_json::Value;

use crate::not_installable::NotInstallable;
use crate::{Descriptor, Manifest};

/// An operating system and a processor, by the names used in images (Go's `GOOS` and `GOARCH`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    pub os: &'static str,
    pub architecture: &'static str,
}

/// Other names of processors, which containerd accepts too (`platforms/database.go`).
const ARCHITECTURES: [(&str, &str); 3] =
    [("x86_64", "amd64"), ("x86-64", "amd64"), ("aarch64", "arm64")];

/// Most platforms that a refusal lists. An index has one entry for each, usually a dozen.
const OFFERED_MAX: usize = 32;

impl Platform {
    /// The machines that the maintenance OS of this version boots.
    pub const MACHINES: Platform = Platform { os: "linux", architecture: "amd64" };

    /// Chooses the manifest of an index that is for these machines. An entry without a platform is only chosen if it
    /// is the only entry.
    pub fn choose<'a>(
        &self,
        bytes: &[u8],
        index: &'a Manifest,
    ) -> Result<&'a Descriptor, NotInstallable> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| NotInstallable(format!("the index is not JSON: {error}")))?;
        let platform = |at: usize| &value["manifests"][at]["platform"];
        if let ([only], Value::Null) = (index.manifests.as_slice(), platform(0)) {
            return Ok(only);
        }
        let fits: Vec<usize> =
            (0..index.manifests.len()).filter(|at| self.is(platform(*at))).collect();
        // Variants of amd64 (`v2`, `v3`) require a newer processor; an image without a variant runs on all.
        let plain = fits.iter().find(|at| platform(**at)["variant"].is_null());
        let found = plain.or(fits.first()).map(|at| &index.manifests[*at]);
        found.ok_or_else(|| {
            let shown = index.manifests.len().min(OFFERED_MAX);
            let mut offered: Vec<_> = (0..shown).map(|at| named(platform(at))).collect();
            offered.dedup();
            NotInstallable(format!(
                "the index has no image for {self}, which this machine is: it has {}",
                if offered.is_empty() { "none at all".into() } else { offered.join(", ") }
            ))
        })
    }

    /// Refuses an image whose configuration (image-spec, config.md) names another platform.
    pub fn check_config(&self, bytes: &[u8]) -> Result<(), NotInstallable> {
        let config: Value = serde_json::from_slice(bytes)
            .map_err(|error| NotInstallable(format!("its configuration is not JSON: {error}")))?;
        let is_other = |field: &str, wanted: &str| {
            config[field].as_str().is_some_and(|told| !told.is_empty() && word(told) != wanted)
        };
        if is_other("os", self.os) || is_other("architecture", self.architecture) {
            return Err(NotInstallable(format!(
                "the image is for {}, but this machine is {self}",
                named(&config)
            )));
        }
        Ok(())
    }

    fn is(&self, platform: &Value) -> bool {
        let field = |name: &str| platform[name].as_str().map(word);
        field("os").is_some_and(|os| os == self.os)
            && field("architecture").is_some_and(|found| found == self.architecture)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// The Go name of an operating system or a processor.
fn word(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let known = ARCHITECTURES.iter().find(|(other, _)| *other == text);
    known.map_or(text, |(_, name)| (*name).to_owned())
}

fn named(platform: &Value) -> String {
    let field = |name: &str| {
        let text: String = platform[name].as_str().unwrap_or("unknown").chars().take(40).collect();
        text
    };
    format!("{}/{}", field("os"), field("architecture"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Digest, media_type};

    #[test]
    fn an_index_gives_the_image_of_the_machine_or_none() {
        let platform = |text: &str| match *text.split('/').collect::<Vec<_>>().as_slice() {
            [os, architecture] => json!({"os": os, "architecture": architecture}),
            [os, architecture, variant] => {
                json!({"os": os, "architecture": architecture, "variant": variant})
            }
            _ => Value::Null,
        };
        for (entries, expected) in [
            (vec!["linux/arm64", "linux/amd64"], Ok(1)),
            (vec!["linux/amd64/v3", "linux/amd64"], Ok(1)),
            (vec!["linux/amd64/v2"], Ok(0)),
            (vec!["Linux/x86_64"], Ok(0)),
            (vec!["-"], Ok(0)),
            (vec!["linux/arm64"], Err("it has linux/arm64")),
            (vec!["linux/arm64", "unknown/unknown"], Err("it has linux/arm64, unknown/unknown")),
            (vec!["windows/amd64"], Err("it has windows/amd64")),
            (vec!["-", "-"], Err("it has unknown/unknown")),
            (vec!["-", "linux/arm64"], Err("it has unknown/unknown, linux/arm64")),
            (vec![], Err("it has none at all")),
        ] {
            let manifests: Vec<Value> = entries
                .iter()
                .enumerate()
                .map(|(at, text)| {
                    let digest = Digest::of(&[u8::try_from(at).unwrap()]);
                    json!({
                        "mediaType": media_type::MANIFEST, "digest": digest.as_str(), "size": 1,
                        "platform": platform(text),
                    })
                })
                .collect();
            let index = json!({
                "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests,
            });
            let bytes = index.to_string().into_bytes();
            let index = Manifest::parse(&bytes, media_type::INDEX).unwrap();
            let chosen = Platform::MACHINES.choose(&bytes, &index);
            match (chosen, expected) {
                (Ok(chosen), Ok(at)) => {
                    let expected: usize = at;
                    assert_eq!(chosen.digest, index.manifests[expected].digest, "{entries:?}");
                }
                (Err(told), Err(words)) => assert!(told.0.ends_with(words), "{entries:?}: {told}"),
                (chosen, expected) => panic!("{entries:?}: {chosen:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_configuration_names_the_machine_or_nothing() {
        for (config, is_taken) in [
            (json!({"os": "linux", "architecture": "amd64"}), true),
            (json!({"os": "linux", "architecture": "x86_64"}), true),
            (json!({"architecture": "amd64"}), true),
            (json!({"os": "", "architecture": ""}), true),
            (json!({}), true),
            (json!({"os": "linux", "architecture": "arm64"}), false),
            (json!({"os": "linux", "architecture": "aarch64"}), false),
            (json!({"os": "windows", "architecture": "amd64"}), false),
            (json!({"architecture": "s390x"}), false),
        ] {
            let told = Platform::MACHINES.check_config(config.to_string().as_bytes());
            assert_eq!(told.is_ok(), is_taken, "{config}: {told:?}");
        }
        assert!(Platform::MACHINES.check_config(b"<html>").is_err());
    }
}
