// SPDX-License-Identifier: AGPL-3.0-or-later
//! From bytes to a [`Recipe`]: size and depth, the schema, then `meaning`. Every problem is reported at
//! once, each with its JSON pointer and what would be valid.

use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use crate::SCHEMA;
use crate::document::{BODY_BYTES_MAX, check_keys, cure, without_mark};
use crate::meaning::from_wire;
use crate::model::Recipe;
use crate::problem::{PROBLEMS_MAX, Problem, problem};
use crate::target_disk::name;
use crate::wire::Wire;

/// The newest version of the recipe format. The previous version is accepted too.
pub const CURRENT_VERSION: u32 = 1;
/// Deepest nesting. Our fields need six levels; `metadata` may need some of its own.
const DEPTH_MAX: usize = 64;
/// Most characters of a wrong value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(SCHEMA).expect("the embedded schema is JSON");
    jsonschema::draft7::new(&schema).expect("the embedded schema is a valid draft-07 schema")
});

impl Recipe {
    /// Returns the recipe in `bytes`, or every problem with it.
    pub fn parse(bytes: &[u8]) -> Result<Recipe, Vec<Problem>> {
        if bytes.len() > BODY_BYTES_MAX {
            let message = format!("{} bytes; at most {BODY_BYTES_MAX} are taken", bytes.len());
            return Err(vec![problem("", "too-large", message)]);
        }
        if depth(bytes) > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(vec![problem("", "too-deep", message)]);
        }
        let bytes = without_mark(bytes);
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            let cure = cure(bytes).map(|cure| format!("; {cure}")).unwrap_or_default();
            vec![problem("", "json", format!("not JSON: {error}{cure}"))]
        })?;
        check_keys(bytes).map_err(|error| vec![problem("", "twice", error.to_string())])?;
        let problems: Vec<Problem> =
            VALIDATOR.iter_errors(&value).flat_map(told).take(PROBLEMS_MAX).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let wire: Wire = serde_json::from_value(value)
            .map_err(|error| vec![problem("", "json", unreadable(&error))])?;
        from_wire(wire)
    }
}

/// Deepest nesting of brackets outside strings, found without building a value.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The message for a recipe that passes the schema but does not deserialize: `1.0` for `1`, or both spellings of the
/// kickstart. The error may contain a value, so only its part about fields is used.
fn unreadable(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.starts_with("duplicate field") {
        true => "ks_cfg and ks.cfg are the same field; write one of them".into(),
        false => "a whole number is written with a fraction; write 1, not 1.0".into(),
    }
}

/// Turns an error of the schema validator into problems in our own words.
fn told(error: jsonschema::ValidationError) -> Vec<Problem> {
    let path = error.instance_path().to_string();
    let shown = shown(&path, error.instance());
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| {
                let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
                problem(path, "unknown-field", format!("{name:?} is not a field of a recipe"))
            })
            .collect(),
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![problem(format!("{path}/{name}"), "required", format!("{name} is missing"))]
        }
        ValidationErrorKind::MaxLength { limit } => {
            vec![problem(path, "too-long", format!("longer than {limit} characters"))]
        }
        ValidationErrorKind::Pattern { .. }
        | ValidationErrorKind::Enum { .. }
        | ValidationErrorKind::Constant { .. }
        | ValidationErrorKind::Type { .. } => {
            let name = error.instance().as_str().filter(|_| path == "/target_disk");
            let message = match (name.and_then(name::cure), right(&path)) {
                (Some(cure), _) => format!("{shown} is not a disk but {cure}"),
                (None, Some(right)) => format!("{shown} is not {right}"),
                (None, None) => format!("{shown} is not what belongs here"),
            };
            vec![problem(path, "value", message)]
        }
        // The one `anyOf` of the schema: the two spellings of the kickstart.
        ValidationErrorKind::AnyOf { .. } => {
            vec![problem("/ks_cfg", "required", "ks_cfg is missing")]
        }
        ValidationErrorKind::MinLength { .. }
        | ValidationErrorKind::MinItems { .. }
        | ValidationErrorKind::MinProperties { .. } => {
            vec![problem(path, "empty", "nothing is in here; fill it or leave it out")]
        }
        ValidationErrorKind::MaxItems { limit } => {
            vec![problem(path, "too-many", format!("more than {limit} entries"))]
        }
        ValidationErrorKind::MaxProperties { limit } => {
            vec![problem(path, "too-many", format!("more than {limit} entries"))]
        }
        ValidationErrorKind::Minimum { limit } => {
            vec![problem(path, "value", format!("{shown} is too small; at least {limit}"))]
        }
        ValidationErrorKind::Maximum { limit } => {
            vec![problem(path, "value", format!("{shown} is too large; at most {limit}"))]
        }
        ValidationErrorKind::UniqueItems => {
            vec![problem(path, "twice", "an entry is here twice")]
        }
        ValidationErrorKind::PropertyNames { .. } => {
            let message = "a name is capital letters, digits and underscore, at most 64, and does not begin with SHOAL_";
            vec![problem(path, "name", message)]
        }
        // Never the validator's own text: it repeats values, which may be secret.
        kind => vec![problem(path, "schema", format!("breaks the schema's {}", kind.keyword()))],
    }
}

/// What is valid at this place, as the text after "is not".
fn right(path: &str) -> Option<&'static str> {
    let fields: Vec<_> = path.split('/').skip(1).collect();
    let text = match fields.as_slice() {
        [] => "an object of a recipe's fields",
        ["task_target"] => "a systemd target; write one such as install-linux.target",
        ["target_disk"] => {
            "a disk; write a path such as /dev/disk/by-id/..., a kernel name such as sda, or an object of hints (serial, wwn, model, size, rotational, hctl)"
        }
        ["target_disk", "size"] => {
            "a disk's size; write 480G, >=1.92T or <=2T as on its label, or 447GiB in powers of 1024"
        }
        ["target_disk", "wwn"] => "a WWN; write one such as 0x5000c500a1b2c3d4",
        ["target_disk", "hctl"] => "a SCSI address; write one such as 0:0:1:0",
        ["target_disk" | "network", .., "rotational" | "dhcp"] => "true or false",
        ["partition_layout"] => "a list of partitions",
        ["partition_layout", _] => "a partition; write size, type_guid, format and perhaps label",
        ["partition_layout", _, "size"] => {
            "a size; write 512M, 20G or 100% (of a partition, M, G and T are powers of 1024)"
        }
        ["partition_layout", _, "type_guid"] => {
            "a partition type; write an sgdisk code such as ef00 or 8300, or a GUID"
        }
        ["partition_layout", _, "format"] => {
            "a format; write vfat, ext4, xfs, btrfs, ntfs, swap or raw"
        }
        ["partition_layout", _, "label"] => {
            "a label; write letters, digits, dot, hyphen and underscore, with spaces between them at most"
        }
        ["oci_url"] => {
            "an image reference; write host[:port]/repository[:tag][@sha256:...], such as controller/os-images/debian:13"
        }
        ["firmware_url"] => "an http or https URL without a password in it",
        ["firmware_sha256"] => "a SHA-256; write 64 lower-case hex digits",
        ["wipe"] => "consent; write \"any\" or {\"expect\": [\"ext4\", ...]}",
        ["wipe", "expect", _] => "the name of a signature, such as gpt or ext4",
        ["recipe_version"] => "a version that is known here; write 1",
        ["user_data" | "meta_data" | "network_config" | "unattend_xml" | "ks_cfg" | "ks.cfg"] => {
            "text"
        }
        ["env", _] => "one line of text",
        ["network", "interfaces", _, "bond"] => {
            "a bond mode; write active-backup, 802.3ad, balance-rr or balance-xor"
        }
        ["network", "interfaces", _, "macs", _] => {
            "a MAC address; write one such as 52:54:00:12:34:56"
        }
        ["network", "interfaces", _, "addresses", _] | ["network", .., "to"] => {
            "an address with its prefix length, such as 192.0.2.10/24"
        }
        ["network", "interfaces", _, "gateways" | "nameservers", _] | ["network", .., "via"] => {
            "an IP address"
        }
        _ => return None,
    };
    Some(text)
}

/// A wrong value for a message. If the value may be secret, the text says only that it is wrong.
fn shown(path: &str, value: &Value) -> String {
    const MAYBE_SECRET: &[&str] = &[
        "/env",
        "/firmware_url",
        "/ks",
        "/meta_data",
        "/network_config",
        "/unattend_xml",
        "/user_data",
    ];
    match value {
        Value::Object(_) => "this object".into(),
        Value::Array(_) => "this list".into(),
        Value::String(text) if MAYBE_SECRET.iter().any(|start| path.starts_with(start)) => {
            format!("this text of {} bytes", text.len())
        }
        // Possibly a name and a password before the host. In a digest the `@` comes after the host.
        Value::String(text) if text.contains('@') && !text.contains("@sha256:") => {
            format!("this text of {} bytes", text.len())
        }
        _ => bounded(&value.to_string()),
    }
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
