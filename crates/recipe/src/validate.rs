// SPDX-License-Identifier: AGPL-3.0-or-later
//! From bytes to a [`Recipe`]: size and depth, schema, meaning. Every problem is told at once, each
//! with its JSON pointer and what would be right.

use std::net::IpAddr;
use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use crate::SCHEMA;
use crate::layout::{self, Format, Guid, Partition, Size};
use crate::model::{
    Bond, Esxi, Firmware, Interface, Linux, Network, Recipe, TaskTarget, Windows, Wipe, Workflow,
};
use crate::target_disk::{DiskHints, SizeHint};
use crate::wire::{self, Wire};

/// The newest recipe version; the one before is accepted too.
pub const CURRENT_VERSION: u32 = 1;
/// Largest recipe: all payloads at their limits, with JSON's escapes.
pub const BODY_BYTES_MAX: usize = 6 << 20;
/// Deepest nesting: our fields need six; `metadata` may have some of its own.
const DEPTH_MAX: usize = 32;
/// Most problems told at once.
const PROBLEMS_MAX: usize = 100;
/// Most of a wrong value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// One wrong place in a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer (RFC 6901).
    pub path: String,
    /// A short stable word.
    pub code: &'static str,
    pub message: String,
}

fn problem(path: impl Into<String>, code: &'static str, message: impl Into<String>) -> Problem {
    Problem { path: path.into(), code, message: message.into() }
}

static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(SCHEMA).expect("the embedded schema is JSON");
    jsonschema::draft7::new(&schema).expect("the embedded schema is a valid draft-07 schema")
});

impl Recipe {
    /// The recipe in `bytes`, or everything that is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Recipe, Vec<Problem>> {
        if bytes.len() > BODY_BYTES_MAX {
            let message = format!("{} bytes; at most {BODY_BYTES_MAX} are taken", bytes.len());
            return Err(vec![problem("", "too-large", message)]);
        }
        if depth(bytes) > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(vec![problem("", "too-deep", message)]);
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| vec![problem("", "json", format!("not JSON: {error}"))])?;
        let problems: Vec<Problem> =
            VALIDATOR.iter_errors(&value).flat_map(told).take(PROBLEMS_MAX).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let wire: Wire = serde_json::from_value(value)
            .map_err(|error| vec![problem("", "json", error.to_string())])?;
        from_wire(wire)
    }
}

/// Deepest nesting of brackets outside strings, without building anything.
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

/// A schema error in the words of this field.
fn told(error: jsonschema::ValidationError) -> Vec<Problem> {
    let path = error.instance_path().to_string();
    let shown = shown(error.instance());
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
        | ValidationErrorKind::OneOfNotValid { .. } => {
            let message = match right(&path) {
                Some(right) => format!("{shown} is not valid here; write {right}"),
                None => format!("{shown} is not valid here: {}", bounded(&error.to_string())),
            };
            vec![problem(path, "value", message)]
        }
        _ => vec![problem(path, "schema", bounded(&error.to_string()))],
    }
}

/// What would be right at a place.
fn right(path: &str) -> Option<&'static str> {
    let last = path.rsplit('/').next().unwrap_or_default();
    let text = match last {
        "task_target" => "a systemd target such as install-linux.target",
        "target_disk" => {
            "a path such as /dev/disk/by-id/..., a kernel name such as sda, or an object of hints (serial, wwn, model, size, rotational, hctl)"
        }
        "size" if path.starts_with("/partition_layout") => "512M, 20G or 100%",
        "size" => "a size such as 480G, >=100G or <=2T",
        "type_guid" => "an sgdisk code such as ef00 or 8300, or a GUID",
        "format" => "one of vfat, ext4, xfs, btrfs, ntfs, swap, raw",
        "label" => "letters, digits, space, dot, hyphen and underscore, at most 36",
        "oci_url" => {
            "host[:port]/repository[:tag][@sha256:...], such as controller/os-images/debian:13"
        }
        "firmware_url" => "an http or https URL",
        "firmware_sha256" => "64 lower-case hex digits",
        "wipe" => "\"any\" or {\"expect\": [\"ext4\", ...]}",
        "recipe_version" => "0 or 1",
        "bond" => "one of active-backup, 802.3ad, balance-rr, balance-xor",
        _ if path.contains("/macs/") => "a MAC address such as 52:54:00:12:34:56",
        _ if path.contains("/addresses/") => {
            "an address with its prefix length, such as 192.0.2.10/24"
        }
        _ => return None,
    };
    Some(text)
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "this object".into(),
        Value::Array(_) => "this list".into(),
        _ => bounded(&value.to_string()),
    }
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn from_wire(wire: Wire) -> Result<Recipe, Vec<Problem>> {
    let mut problems = Vec::new();
    let workflow = workflow(&wire, &mut problems);
    let network = wire.network.as_ref().map(|network| network_of(network, &mut problems));
    if problems.is_empty() {
        let task_target = TaskTarget(wire.task_target.clone());
        let env = wire.env.clone();
        return Ok(Recipe { task_target, workflow, network, env, wire });
    }
    problems.truncate(PROBLEMS_MAX);
    Err(problems)
}

fn workflow(wire: &Wire, problems: &mut Vec<Problem>) -> Workflow {
    let layout = layout_of(wire.partition_layout.as_deref().unwrap_or_default(), problems);
    let target_disk =
        wire.target_disk.as_ref().map(|disk| hints(disk, problems)).unwrap_or_default();
    let wipe = wipe_of(wire.wipe.as_ref());
    let oci_url = wire.oci_url.clone().unwrap_or_default();
    match wire.task_target.as_str() {
        "install-linux.target" => {
            check_linux(wire, &layout, problems);
            Workflow::Linux(Linux {
                target_disk,
                wipe,
                oci_url,
                layout,
                user_data: wire.user_data.clone(),
                meta_data: wire.meta_data.clone(),
                network_config: wire.network_config.clone(),
            })
        }
        "install-windows.target" => {
            if !layout.is_empty() {
                check_esp(&layout, problems);
            }
            Workflow::Windows(Windows {
                target_disk,
                wipe,
                oci_url,
                wim_index: wire.wim_index.unwrap_or(1),
                layout,
                unattend_xml: wire.unattend_xml.clone().unwrap_or_else(|| String::new().into()),
            })
        }
        "install-esxi.target" => Workflow::Esxi(Esxi {
            ks_cfg: wire.ks_cfg.clone().unwrap_or_else(|| String::new().into()),
        }),
        "firmware-update.target" | "supermicro-update.target" => Workflow::Firmware(Firmware {
            url: wire.firmware_url.clone().unwrap_or_default(),
            sha256: wire.firmware_sha256.clone(),
        }),
        _ => Workflow::Custom,
    }
}

fn check_linux(wire: &Wire, layout: &[Partition], problems: &mut Vec<Problem>) {
    check_esp(layout, problems);
    if !layout.is_empty() && layout::root(layout).is_none() {
        problems.push(problem(
            "/partition_layout",
            "root",
            "it is not clear which partition is the root filesystem; give one ext4, xfs or btrfs partition the label \"root\"",
        ));
    }
    if wire.user_data.is_some() && layout::config_drive(layout).is_none() {
        problems.push(problem(
            "/partition_layout",
            "cidata-missing",
            "user_data needs a partition for cloud-init: format vfat (or raw), label \"cidata\", 64M",
        ));
    }
    let extra = [("meta_data", &wire.meta_data), ("network_config", &wire.network_config)];
    for (name, payload) in extra {
        if payload.is_some() && wire.user_data.is_none() {
            let message = format!("{name} is only read together with user_data");
            problems.push(problem(format!("/{name}"), "user-data-missing", message));
        }
    }
}

fn check_esp(layout: &[Partition], problems: &mut Vec<Problem>) {
    match layout::esp(layout) {
        None => problems.push(problem(
            "/partition_layout",
            "esp-missing",
            "no EFI system partition; add one with type_guid ef00, format vfat, 512M",
        )),
        Some(esp) if esp.format != Format::Vfat => problems.push(problem(
            format!("/partition_layout/{}/format", esp.number - 1),
            "esp-format",
            format!("an EFI system partition is vfat, not {}", esp.format.name()),
        )),
        Some(_) => {}
    }
}

fn layout_of(wire: &[wire::Partition], problems: &mut Vec<Problem>) -> Vec<Partition> {
    let mut layout = Vec::new();
    let mut total = 0u64;
    for (index, part) in wire.iter().enumerate() {
        let place = |field: &str| format!("/partition_layout/{index}/{field}");
        let size = Size::parse(&part.size);
        match size {
            None => problems.push(problem(
                place("size"),
                "size",
                format!("{:?} is too large", part.size),
            )),
            Some(Size::Remaining) if index + 1 < wire.len() => problems.push(problem(
                place("size"),
                "remaining-not-last",
                "only the last partition can be 100%: it takes what the others leave",
            )),
            Some(Size::Remaining) => {}
            Some(Size::Bytes(bytes)) => match total.checked_add(bytes) {
                Some(sum) => total = sum,
                None => problems.push(problem(
                    place("size"),
                    "size",
                    "the sizes add up to more than any disk",
                )),
            },
        }
        let type_guid = Guid::parse(&part.type_guid);
        if type_guid.is_none() {
            let message = format!(
                "{:?} is not an sgdisk code that is known here; write its GUID",
                part.type_guid
            );
            problems.push(problem(place("type_guid"), "type", message));
        }
        let (Some(size), Some(type_guid), Some(format)) =
            (size, type_guid, Format::parse(&part.format))
        else {
            continue;
        };
        if let Size::Bytes(bytes) = size
            && bytes < format.bytes_min()
        {
            let message =
                format!("too small for {}; at least {}M", format.name(), format.bytes_min() >> 20);
            problems.push(problem(place("size"), "too-small", message));
        }
        if let Some(label) = &part.label
            && label.len() > format.label_bytes_max()
        {
            let message = format!(
                "a label of {} has at most {} bytes",
                format.name(),
                format.label_bytes_max()
            );
            problems.push(problem(place("label"), "label-too-long", message));
        }
        let number = index as u32 + 1;
        layout.push(Partition { number, size, type_guid, format, label: part.label.clone() });
    }
    layout
}

fn wipe_of(wire: Option<&wire::Wipe>) -> Wipe {
    match wire {
        None => Wipe::Never,
        Some(wire::Wipe::Word(_)) => Wipe::Any,
        Some(wire::Wipe::Expect { expect }) => Wipe::Expect(expect.clone()),
    }
}

fn hints(wire: &wire::TargetDisk, problems: &mut Vec<Problem>) -> DiskHints {
    let hints = match wire {
        wire::TargetDisk::Name(name) => {
            return DiskHints { name: Some(name.clone()), ..DiskHints::default() };
        }
        wire::TargetDisk::Hints(hints) => hints.clone(),
    };
    let size = hints.size.as_deref().map(|text| (text, SizeHint::parse(text)));
    if let Some((text, None)) = size {
        problems.push(problem("/target_disk/size", "size", format!("{text:?} is too large")));
    }
    DiskHints {
        name: None,
        serial: hints.serial,
        wwn: hints.wwn,
        model: hints.model,
        size: size.and_then(|(_, size)| size),
        rotational: hints.rotational,
        hctl: hints.hctl,
    }
}

fn network_of(wire: &wire::Network, problems: &mut Vec<Problem>) -> Network {
    let mut interfaces = Vec::new();
    for (index, one) in wire.interfaces.iter().enumerate() {
        let place = |field: &str| format!("/network/interfaces/{index}/{field}");
        if one.macs.len() > 1 && one.bond.is_none() {
            problems.push(problem(
                place("macs"),
                "bond-missing",
                "several MACs need a `bond` mode",
            ));
        }
        let mut addresses = Vec::new();
        for (number, text) in one.addresses.iter().enumerate() {
            let parsed = text.split_once('/').and_then(|(address, length)| {
                let address: IpAddr = address.parse().ok()?;
                let length: u8 = length.parse().ok()?;
                (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
            });
            match parsed {
                Some(parsed) => addresses.push(parsed),
                None => problems.push(problem(
                    place(&format!("addresses/{number}")),
                    "address",
                    format!(
                        "{text:?} is not an address with its prefix length, such as 192.0.2.10/24"
                    ),
                )),
            }
        }
        let mut list = |field: &str, texts: &[String]| -> Vec<IpAddr> {
            let mut parsed = Vec::new();
            for (number, text) in texts.iter().enumerate() {
                match text.parse() {
                    Ok(address) => parsed.push(address),
                    Err(_) => problems.push(problem(
                        place(&format!("{field}/{number}")),
                        "address",
                        format!("{text:?} is not an IP address"),
                    )),
                }
            }
            parsed
        };
        let gateways = list("gateways", &one.gateways);
        let nameservers = list("nameservers", &one.nameservers);
        let dhcp = one.dhcp.unwrap_or(one.addresses.is_empty());
        let bond = one.bond.as_deref().map(|mode| match mode {
            "802.3ad" => Bond::Lacp,
            "balance-rr" => Bond::BalanceRr,
            "balance-xor" => Bond::BalanceXor,
            _ => Bond::ActiveBackup,
        });
        let macs = one.macs.iter().map(|mac| mac.to_ascii_lowercase()).collect();
        let (vlan, mtu) = (one.vlan, one.mtu);
        interfaces.push(Interface {
            macs,
            bond,
            vlan,
            mtu,
            dhcp,
            addresses,
            gateways,
            nameservers,
        });
    }
    Network { interfaces }
}
