// SPDX-License-Identifier: AGPL-3.0-or-later
//! Selects the target disk. Exactly one disk must match: there is no default, not the smallest and not the first.

pub(crate) mod name;
mod size;

use serde::{Deserialize, Serialize};

pub use size::SizeHint;

/// The disk hints of a recipe. Every hint must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskHints {
    /// A `/dev/disk/by-*` path. A kernel name (`sda`) is accepted only if the machine has one disk.
    pub name: Option<String>,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    pub model: Option<String>,
    pub size: Option<SizeHint>,
    pub rotational: Option<bool>,
    pub hctl: Option<String>,
}

/// The facts about one disk of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Kernel name, such as `nvme0n1`.
    pub name: String,
    pub size_bytes: u64,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    /// The maker, if it is reported separately from the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub rotational: bool,
    pub removable: bool,
    pub read_only: bool,
    pub optical: bool,
    pub hctl: Option<String>,
    /// Every `/dev/disk/by-*` path of the disk.
    pub links: Vec<String>,
}

/// No disk matches, or several do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{matching} disks match target_disk, {rule}; this machine has {seen}")]
pub struct NoDisk {
    pub matching: usize,
    /// The rule that is not met.
    pub rule: &'static str,
    /// The disks of the machine, as text for people.
    pub seen: String,
}

const ONE_MUST: &str = "exactly one must";
/// Kernel names are given in the order in which the kernel found the disks. With a USB stick (also a virtual one of
/// ours), or a disk that is detected later than last time, the name means another disk.
const NAME_IS_NOT_ENOUGH: &str = "and a kernel name is accepted only where there is one disk: it says which disk \
    the kernel met first; write serial, wwn or a /dev/disk/by-* path";

/// Returns the one disk that matches.
pub fn select<'a>(hints: &DiskHints, disks: &'a [DiskFacts]) -> Result<&'a DiskFacts, NoDisk> {
    let seen = || describe(disks);
    let targets = disks.iter().filter(|disk| is_target(disk)).count();
    if targets > 1 && hints.name.as_deref().is_some_and(is_kernel_name) {
        return Err(NoDisk { matching: targets, rule: NAME_IS_NOT_ENOUGH, seen: seen() });
    }
    let matching: Vec<_> = disks.iter().filter(|disk| is_meant(hints, disk)).collect();
    match matching.as_slice() {
        [disk] => Ok(disk),
        _ => Err(NoDisk { matching: matching.len(), rule: ONE_MUST, seen: seen() }),
    }
}

/// Whether this is a kernel name, not a `/dev/disk/by-*` path. udev derives those from the disk itself or its slot.
fn is_kernel_name(name: &str) -> bool {
    !name.starts_with("/dev/disk/")
}

fn is_target(disk: &DiskFacts) -> bool {
    disk.size_bytes > 0 && !disk.removable && !disk.read_only && !disk.optical
}

fn is_meant(hints: &DiskHints, disk: &DiskFacts) -> bool {
    let same = |hint: &Option<String>, fact: &Option<String>| match (hint, fact) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(hint), Some(fact)) => comparable(hint) == comparable(fact),
    };
    let same_model = hints.model.as_deref().is_none_or(|hint| {
        let with_vendor =
            [disk.vendor.as_deref(), disk.model.as_deref()].map(Option::unwrap_or_default);
        same(&hints.model, &disk.model) || comparable(hint) == comparable(&with_vendor.join(" "))
    });
    let same_wwn = match (&hints.wwn, &disk.wwn) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(hint), Some(fact)) => bare_wwn(hint) == bare_wwn(fact),
    };
    let is_named = hints.name.as_deref().is_none_or(|name| {
        name.strip_prefix("/dev/").unwrap_or(name) == disk.name
            || disk.links.iter().any(|link| link == name)
    });
    is_target(disk)
        && is_named
        && same(&hints.serial, &disk.serial)
        && same_wwn
        && same_model
        && hints.size.is_none_or(|size| size.is_met_by(disk.size_bytes))
        && hints.rotational.is_none_or(|rotational| rotational == disk.rotational)
        && same(&hints.hctl, &disk.hctl)
}

/// Normalises a text about a disk, so that texts from different sources can be compared. The kernel pads with spaces.
/// udev replaces each run of white space by one `_`, and punctuation that is not safe in a file name by `_`
/// (`ID_MODEL`, `ID_SERIAL`). People write what is on the label.
fn comparable(text: &str) -> String {
    /// Punctuation, other than `_`, that udev keeps (systemd, `udev-util.c`).
    const KEPT: &str = "#+-.:=@";
    let words: Vec<&str> = text
        .split(|letter: char| !letter.is_alphanumeric() && !KEPT.contains(letter))
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").to_lowercase()
}

/// The digits of a WWN. A prefix tells its kind, and RAID controllers put colons between its bytes.
fn bare_wwn(wwn: &str) -> String {
    let lower = wwn.trim().to_ascii_lowercase();
    let lower = lower.strip_prefix("wwn-").unwrap_or(&lower);
    let prefix =
        ["0x", "naa.", "eui.", "nvme."].iter().find_map(|prefix| lower.strip_prefix(prefix));
    let bare = prefix.unwrap_or(lower);
    let is_byte =
        |pair: &str| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
    match bare.split([':', '-']).all(is_byte) {
        true => bare.replace([':', '-'], ""),
        false => bare.to_owned(),
    }
}

fn describe(disks: &[DiskFacts]) -> String {
    if disks.is_empty() {
        return "no disk at all".into();
    }
    let one = |disk: &DiskFacts| {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        format!(
            "{} (serial {}, wwn {}, model {}, {}, {} bytes{})",
            disk.name,
            text(&disk.serial),
            text(&disk.wwn),
            text(&disk.model),
            size::on_the_label(disk.size_bytes),
            disk.size_bytes,
            if disk.removable || disk.optical || disk.read_only { ", not a target" } else { "" }
        )
    };
    disks.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, serial: &str, size_bytes: u64) -> DiskFacts {
        DiskFacts {
            name: name.into(),
            serial: Some(serial.into()),
            wwn: Some(format!("0x5000c500{serial:0>8}")),
            size_bytes,
            links: vec![format!("/dev/disk/by-id/ata-{serial}")],
            ..DiskFacts::default()
        }
    }

    #[test]
    fn exactly_one_disk_is_meant_or_none() {
        let mut disks = vec![
            disk("sda", "A1", 1 << 40),
            disk("sdb", "B2", 1 << 40),
            disk("sdc", "C3", 1 << 30),
        ];
        disks[2].removable = true;
        let hint = |change: &dyn Fn(&mut DiskHints)| {
            let mut hints = DiskHints::default();
            change(&mut hints);
            hints
        };
        let cases: Vec<(DiskHints, Result<&str, usize>)> = vec![
            (DiskHints::default(), Err(2)),
            (hint(&|h| h.serial = Some("B2".into())), Ok("sdb")),
            (hint(&|h| h.serial = Some("B2 ".into())), Ok("sdb")),
            (hint(&|h| h.serial = Some("b2".into())), Ok("sdb")),
            (hint(&|h| h.name = Some("sda".into())), Err(2)),
            (hint(&|h| h.name = Some("/dev/sda".into())), Err(2)),
            (hint(&|h| h.name = Some("/dev/disk/by-id/ata-B2".into())), Ok("sdb")),
            (hint(&|h| h.wwn = Some("naa.5000C500000000a1".into())), Ok("sda")),
            (hint(&|h| h.size = Some(SizeHint::AtLeast(1 << 40))), Err(2)),
            (hint(&|h| h.size = Some(SizeHint::AtMost(1 << 31))), Err(0)),
            (hint(&|h| h.serial = Some("C3".into())), Err(0)),
            (hint(&|h| h.model = Some("X".into())), Err(0)),
            (hint(&|h| h.rotational = Some(true)), Err(0)),
        ];
        for (hints, expected) in cases {
            let got = select(&hints, &disks);
            let got = got.map(|disk| disk.name.as_str()).map_err(|error| error.matching);
            assert_eq!(got, expected, "{hints:?}");
        }
    }

    /// An SSD for the system, one for data, and a volume of a RAID controller.
    fn server() -> [DiskFacts; 3] {
        let named = |name: &str, serial: &str, size_bytes, vendor: &str, model: &str| DiskFacts {
            vendor: (!vendor.is_empty()).then(|| vendor.into()),
            model: Some(model.into()),
            ..disk(name, serial, size_bytes)
        };
        [
            named("sda", "S45PNC0W100001", 480_103_981_056, "", "MZ7KH480HAHQ-00005"),
            named("sdb", "S4FKNG0M100002", 1_920_383_410_176, "", "Samsung_SSD_870_EVO_2TB"),
            named("sdc", "00d9a0c2", 959_119_884_288, "DELL", "PERC_H755_Front"),
        ]
    }

    #[test]
    fn a_size_hint_means_the_label_and_takes_no_larger_disk_in_silence() {
        for (size, expected) in [
            ("480G", Ok("sda")),
            ("480 GB", Ok("sda")),
            ("447GiB", Ok("sda")),
            ("480GiB", Err(0)),
            (">=480G", Err(3)),
            ("<=480G", Ok("sda")),
            (">=1T", Ok("sdb")),
            (">=1.92T", Ok("sdb")),
            ("960G", Ok("sdc")),
            (">=960G", Err(2)),
            ("1.92T", Ok("sdb")),
            ("2T", Err(0)),
        ] {
            let hints = DiskHints { size: SizeHint::parse(size), ..DiskHints::default() };
            let disks = server();
            let got = select(&hints, &disks).map(|disk| disk.name.as_str());
            assert_eq!(got.map_err(|error| error.matching), expected, "{size}");
        }
    }

    #[test]
    fn texts_are_those_of_the_label_the_kernel_and_udev_alike() {
        let disks = server();
        let model = |text: &str| DiskHints { model: Some(text.into()), ..DiskHints::default() };
        let serial = |text: &str| DiskHints { serial: Some(text.into()), ..DiskHints::default() };
        let wwn = |text: &str| DiskHints { wwn: Some(text.into()), ..DiskHints::default() };
        for (hints, expected) in [
            (model("PERC H755 Front"), Ok("sdc")),
            (model("PERC H755 Front "), Ok("sdc")),
            (model("PERC_H755_Front"), Ok("sdc")),
            (model("perc  h755   front"), Ok("sdc")),
            (model("DELL PERC H755 Front"), Ok("sdc")),
            (model("PERC (H755)/Front"), Ok("sdc")),
            (model("PERC H755"), Err(0)),
            (model("PERCH755Front"), Err(0)),
            (model("Samsung SSD 870 EVO 2TB"), Ok("sdb")),
            (model("MZ7KH480HAHQ 00005"), Err(0)),
            (model("MZ7KH480HAHQ-00005"), Ok("sda")),
            (model("DELL"), Err(0)),
            (serial("s45pnc0w100001 "), Ok("sda")),
            (serial("S45PNC0W10000"), Err(0)),
            (wwn("wwn-0x5000c50000d9a0c2"), Ok("sdc")),
            (wwn("50:00:C5:00:00:D9:A0:C2"), Ok("sdc")),
            (wwn("5000c50000d9a0c"), Err(0)),
        ] {
            let got = select(&hints, &disks).map(|disk| disk.name.as_str());
            assert_eq!(got.map_err(|error| error.matching), expected, "{hints:?}");
        }
    }

    #[test]
    fn two_disks_that_one_text_means_are_refused() {
        let mut disks = server();
        disks[0].model = Some("PERC H755  Front".into());
        let hints = DiskHints { model: Some("PERC H755 Front".into()), ..DiskHints::default() };
        let refused = select(&hints, &disks).unwrap_err();
        assert_eq!((refused.matching, refused.rule), (2, ONE_MUST));
        assert!(refused.to_string().contains("480.10 GB, 480103981056 bytes"), "{refused}");
        disks[1].serial = Some("s45pnc0w100001".into());
        let hints = DiskHints { serial: disks[0].serial.clone(), ..DiskHints::default() };
        assert_eq!(select(&hints, &disks).unwrap_err().matching, 2);
    }

    #[test]
    fn what_cannot_be_written_is_not_meant() {
        let good = disk("sda", "A1", 1 << 30);
        assert!(select(&DiskHints::default(), std::slice::from_ref(&good)).is_ok());
        for bad in [
            DiskFacts { size_bytes: 0, ..good.clone() },
            DiskFacts { removable: true, ..good.clone() },
            DiskFacts { read_only: true, ..good.clone() },
            DiskFacts { optical: true, ..good.clone() },
        ] {
            let refused = select(&DiskHints::default(), std::slice::from_ref(&bad)).unwrap_err();
            assert_eq!(refused.matching, 0, "{bad:?}");
        }
    }

    /// The USB stick with our task medium is `sda` if a BMC attaches it early, and shifts every other name by one.
    #[test]
    fn a_kernel_name_means_the_only_disk_or_none() {
        let named = |name: &str| DiskHints { name: Some(name.into()), ..DiskHints::default() };
        let stick = DiskFacts { removable: true, ..disk("sda", "STICK", 1 << 30) };
        let (first, second) = (disk("sdb", "A1", 1 << 40), disk("sdc", "B2", 1 << 40));
        let one = [stick.clone(), first.clone()];
        let two = [stick, first, second];
        for (disks, name, expected) in [
            (&one[..], "sdb", Ok("sdb")),
            (&one, "/dev/sdb", Ok("sdb")),
            (&one, "sda", Err((0, ONE_MUST))),
            (&two, "sdb", Err((2, NAME_IS_NOT_ENOUGH))),
            (&two, "/dev/sdc", Err((2, NAME_IS_NOT_ENOUGH))),
            (&two, "nosuch", Err((2, NAME_IS_NOT_ENOUGH))),
            (&two, "/dev/disk/by-id/ata-B2", Ok("sdc")),
            (&two, "/dev/disk/by-id/ata-C3", Err((0, ONE_MUST))),
        ] {
            let got = select(&named(name), disks);
            let got = got.map(|disk| disk.name.as_str());
            assert_eq!(got.map_err(|error| (error.matching, error.rule)), expected, "{name}");
        }
        let error = select(&named("sdb"), &two).unwrap_err().to_string();
        assert!(error.contains("sdc (serial B2, "), "{error}");
    }

    #[test]
    fn the_refusal_lists_what_is_there() {
        let error = select(&DiskHints::default(), &[]).unwrap_err().to_string();
        assert!(error.contains("no disk at all"), "{error}");
    }
}
