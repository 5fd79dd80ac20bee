// SPDX-License-Identifier: AGPL-3.0-or-later
//! For which machines an image is. Pure.

use anyhow::{Context, ensure};
use oci::{Descriptor, Manifest};
use serde_json::Value;

const OS: &str = "linux";

/// This machine's processor, by the name that images have for it (Go's `GOARCH`).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest of an index that is for this machine. An entry that names no platform is taken only where
/// it is the only one.
pub fn for_this_machine<'a>(bytes: &[u8], index: &'a Manifest) -> anyhow::Result<&'a Descriptor> {
    let value: Value = serde_json::from_slice(bytes)?;
    let platform = |at: usize| &value["manifests"][at]["platform"];
    if let ([only], Value::Null) = (index.manifests.as_slice(), platform(0)) {
        return Ok(only);
    }
    let fits: Vec<usize> =
        (0..index.manifests.len()).filter(|at| is_for_this_machine(platform(*at))).collect();
    // Variants of amd64 (`v2`, `v3`) demand a newer processor; the image without one runs on each.
    let plain = fits.iter().find(|at| platform(**at)["variant"].is_null());
    let found = plain.or(fits.first()).map(|at| &index.manifests[*at]);
    found.with_context(|| {
        let offered: Vec<_> = (0..index.manifests.len()).map(|at| named(platform(at))).collect();
        format!(
            "the index has no image for {OS}/{}, which this machine is: it has {}",
            architecture(),
            offered.join(", ")
        )
    })
}

/// Refuses an image whose configuration (image-spec, config.md) names another platform.
pub fn check_config(bytes: &[u8]) -> anyhow::Result<()> {
    let config: Value = serde_json::from_slice(bytes).context("it is not JSON")?;
    let is_other = |field: &str, wanted: &str| {
        config[field].as_str().is_some_and(|told| !told.is_empty() && told != wanted)
    };
    ensure!(
        !is_other("os", OS) && !is_other("architecture", architecture()),
        "the image is for {}, but this machine is {OS}/{}",
        named(&config),
        architecture()
    );
    Ok(())
}

fn is_for_this_machine(platform: &Value) -> bool {
    platform["os"] == OS && platform["architecture"] == architecture()
}

fn named(platform: &Value) -> String {
    let field = |name: &str| platform[name].as_str().unwrap_or("unknown").to_owned();
    format!("{}/{}", field("os"), field("architecture"))
}
