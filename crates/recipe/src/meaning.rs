// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks that the schema cannot express: turns the fields as written into a valid [`Recipe`]. The network has its own
//! file.

mod cloud_init;
mod network;

use crate::document::BODY_BYTES_MAX;
use crate::layout::{self, Format, Guid, Partition, Size};
use crate::model::{Esxi, Firmware, Linux, Recipe, STAND_IN, TaskTarget, Windows, Wipe, Workflow};
use crate::payload::Payload;
use crate::problem::{PROBLEMS_MAX, Problem, problem};
use crate::target_disk::{DiskHints, SizeHint, name};
use crate::wire::{self, Wire};

/// Largest payload. The files of cloud-init and Windows are far smaller.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Largest kickstart.
const KICKSTART_BYTES_MAX: usize = 256 << 10;
/// Names that `recipe.env` sets itself, and names that change how a program is found.
const ENV_RESERVED: &[&str] = &[
    "FIRMWARE_SHA256",
    "FIRMWARE_URL",
    "HOME",
    "OCI_URL",
    "PATH",
    "SERIAL_NUMBER",
    "TARGET_DISK",
    "TASK_TARGET",
    "WIM_INDEX",
];
/// Prefixes of our own names, and of those of the loader (ld.so(8)), podman and systemd.
const ENV_PREFIXES_RESERVED: &[&str] =
    &["CONTAINER", "LD_", "NOTIFY_", "PODMAN_", "REGISTRY_", "SHOAL_", "SYSTEMD_", "XDG_"];

pub fn from_wire(mut wire: Wire) -> Result<Recipe, Vec<Problem>> {
    let mut problems = Vec::new();
    let workflow = workflow(&wire, &mut problems);
    let network = wire.network.as_ref().map(|network| network::network_of(network, &mut problems));
    check_payloads(&wire, &mut problems);
    check_cloud_init(&wire, &mut problems);
    check_env(&wire, &mut problems);
    wire.sort();
    check_canonical(&wire, &mut problems);
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
            // If a size or a type was wrong, the root filesystem would only be a guess.
            if Some(layout.len()) == wire.partition_layout.as_ref().map(Vec::len) {
                check_linux(wire, &layout, problems);
            }
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
            if Some(layout.len()) == wire.partition_layout.as_ref().map(Vec::len) {
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

/// The schema counts characters; files and media count bytes.
fn check_payloads(wire: &Wire, problems: &mut Vec<Problem>) {
    let limited = [
        ("user_data", &wire.user_data, PAYLOAD_BYTES_MAX),
        ("meta_data", &wire.meta_data, PAYLOAD_BYTES_MAX),
        ("network_config", &wire.network_config, PAYLOAD_BYTES_MAX),
        ("unattend_xml", &wire.unattend_xml, PAYLOAD_BYTES_MAX),
        ("ks_cfg", &wire.ks_cfg, KICKSTART_BYTES_MAX),
    ];
    for (name, payload, bytes_max) in limited {
        let bytes = payload.as_ref().map_or(0, |payload| payload.as_bytes().len());
        if bytes > bytes_max {
            let message = format!("{bytes} bytes; at most {bytes_max} are taken");
            problems.push(problem(format!("/{name}"), "too-long", message));
        }
    }
}

/// Checks the payloads that cloud-init reads. On a medium that others can read, each payload is a stand-in.
fn check_cloud_init(wire: &Wire, problems: &mut Vec<Problem>) {
    fn given(payload: Option<&Payload>) -> Option<&str> {
        payload.map(Payload::as_str).filter(|text| *text != STAND_IN)
    }
    if let Some(text) = given(wire.user_data.as_ref()) {
        cloud_init::check_user_data(text, problems);
    }
    let others = [("meta_data", &wire.meta_data), ("network_config", &wire.network_config)];
    for (name, payload) in others {
        if let Some(text) = given(payload.as_ref()) {
            cloud_init::check_yaml(name, text, problems);
        }
    }
}

/// Rejects reserved names. `env` comes last in `recipe.env`, and the last value wins: it must not select another disk,
/// nor affect the programs that start the tools.
fn check_env(wire: &Wire, problems: &mut Vec<Problem>) {
    for name in wire.env.keys() {
        let is_reserved = ENV_RESERVED.contains(&name.as_str())
            || ENV_PREFIXES_RESERVED.iter().any(|prefix| name.starts_with(prefix));
        if is_reserved {
            let message = format!("{name} is reserved; give the variable another name");
            problems.push(problem(format!("/env/{name}"), "env-reserved", message));
        }
    }
}

/// Checks the canonical JSON, which is what the machine reads: it must parse, and mean the same.
fn check_canonical(wire: &Wire, problems: &mut Vec<Problem>) {
    let json = wire.to_json();
    if json.len() > BODY_BYTES_MAX {
        let message = format!("{} bytes when indented; at most {BODY_BYTES_MAX}", json.len());
        problems.push(problem("", "too-large", message));
    } else if serde_json::from_slice::<Wire>(&json).ok().as_ref() != Some(wire) {
        let message = "a number here has more digits than a computer keeps; write it as text";
        problems.push(problem("/metadata", "number", message));
    }
}

fn check_linux(wire: &Wire, layout: &[Partition], problems: &mut Vec<Problem>) {
    check_esp(layout, problems);
    for partition in layout.iter().filter(|partition| partition.format == Format::Ntfs) {
        problems.push(problem(
            format!("/partition_layout/{}/format", partition.number - 1),
            "format",
            "ntfs is for Windows; a Linux layout takes vfat, ext4, xfs, btrfs, swap or raw",
        ));
    }
    if !layout.is_empty() && !layout.iter().any(|partition| partition.size == Size::Remaining) {
        problems.push(problem(
            format!("/partition_layout/{}/size", layout.len() - 1),
            "remaining-missing",
            "no partition takes the rest of the disk; give the last one the size 100%",
        ));
    }
    check_config_drive_fits(wire, layout, problems);
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

/// Checks the size of the config drive here, because an overflow would otherwise be found after the disk is written.
fn check_config_drive_fits(wire: &Wire, layout: &[Partition], problems: &mut Vec<Problem>) {
    let payloads = [&wire.user_data, &wire.meta_data, &wire.network_config];
    let bytes: usize = payloads.into_iter().flatten().map(|text| text.as_bytes().len()).sum();
    let Some(drive) = layout::config_drive(layout) else { return };
    let Size::Bytes(room) = drive.size else { return };
    // The filesystem's own structures, and the meta-data that is generated if the recipe has none.
    const OVERHEAD: u64 = 512 << 10;
    if wire.user_data.is_some() && bytes as u64 + OVERHEAD > room {
        let message = format!("{bytes} bytes of user_data do not fit; make it 64M");
        let place = format!("/partition_layout/{}/size", drive.number - 1);
        problems.push(problem(place, "too-small", message));
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
        Some(esp) => check_esp_size(esp, problems),
    }
}

/// Firmware looks for FAT32 on the ESP (UEFI 2.10, 13.3.1). Only the machine knows the sector size of its disk: its
/// partition step repeats this check with that size.
fn check_esp_size(esp: &Partition, problems: &mut Vec<Problem>) {
    const SECTOR_BYTES_MIN: u64 = 512;
    let bytes_min = layout::fat32_bytes_min(SECTOR_BYTES_MIN);
    if matches!(esp.size, Size::Bytes(bytes) if bytes < bytes_min) {
        problems.push(problem(
            format!("/partition_layout/{}/size", esp.number - 1),
            "esp-size",
            format!(
                "an EFI system partition is FAT32, which needs {}M at least, and {}M on a disk with sectors of 4096 \
                 bytes; write 512M",
                bytes_min >> 20,
                layout::fat32_bytes_min(4096) >> 20
            ),
        ));
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
            && let Some(message) = format.refuses_label(label)
        {
            problems.push(problem(place("label"), "label", message));
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
    check_labels(wire, problems);
    layout
}

/// Rejects duplicate labels: they decide mount points and the config drive, so two partitions with the same label would
/// be mounted in one place.
fn check_labels(wire: &[wire::Partition], problems: &mut Vec<Problem>) {
    for (index, part) in wire.iter().enumerate() {
        let Some(label) = &part.label else { continue };
        let is_same = |earlier: &wire::Partition| {
            earlier.label.as_ref().is_some_and(|other| other.eq_ignore_ascii_case(label))
        };
        if wire[..index].iter().any(is_same) {
            let message = format!("{label:?} is the label of an earlier partition too");
            problems.push(problem(
                format!("/partition_layout/{index}/label"),
                "label-twice",
                message,
            ));
        }
    }
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
            if !name::is_possible(name) {
                problems.push(problem("/target_disk", "value", format!("{name:?} is not a disk")));
            }
            return DiskHints { name: Some(name.clone()), ..DiskHints::default() };
        }
        wire::TargetDisk::Hints(hints) => hints.clone(),
    };
    let size = hints.size.as_deref().map(|text| (text, SizeHint::parse(text)));
    if let Some((text, None)) = size {
        problems.push(problem(
            "/target_disk/size",
            "size",
            format!("{text:?} is no size of a disk"),
        ));
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
