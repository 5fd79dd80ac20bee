// SPDX-License-Identifier: AGPL-3.0-or-later
//! Which disk is meant. Exactly one must match: no default, no smallest, no first.

use serde::{Deserialize, Serialize};

use crate::layout;

/// What a recipe says of its disk; every hint must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskHints {
    /// A `/dev/disk/by-*` path; or a kernel name (`sda`), where this is the only disk.
    pub name: Option<String>,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    pub model: Option<String>,
    pub size: Option<SizeHint>,
    pub rotational: Option<bool>,
    pub hctl: Option<String>,
}

/// A size in bytes, and how it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeHint {
    AtLeast(u64),
    AtMost(u64),
    /// Within 1 %: vendors' gigabytes differ from ours.
    About(u64),
}

/// What the machine knows of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Kernel name, such as `nvme0n1`.
    pub name: String,
    pub size_bytes: u64,
    pub serial: Option<String>,
    pub wwn: Option<String>,
    pub model: Option<String>,
    pub rotational: bool,
    pub removable: bool,
    pub read_only: bool,
    pub optical: bool,
    pub hctl: Option<String>,
    /// Every `/dev/disk/by-*` path of the disk.
    pub links: Vec<String>,
}

/// No disk is meant, or several are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{matching} disks match target_disk, {rule}; this machine has {seen}")]
pub struct NoDisk {
    pub matching: usize,
    /// What is broken.
    pub rule: &'static str,
    /// The disks, for people.
    pub seen: String,
}

const ONE_MUST: &str = "exactly one must";
/// Names count the disks in the order in which the kernel met them. A stick, a virtual one of ours too, or
/// a disk that answers later than last time, and the name is another disk's.
const NAME_IS_NOT_ENOUGH: &str = "and a kernel name is accepted only where there is one disk: it says which disk \
    the kernel met first; write serial, wwn or a /dev/disk/by-* path";

/// The one disk that is meant.
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

/// Not `/dev/disk/by-*`, which udev makes from what the disk itself or its place says.
fn is_kernel_name(name: &str) -> bool {
    !name.starts_with("/dev/disk/")
}

fn is_target(disk: &DiskFacts) -> bool {
    disk.size_bytes > 0 && !disk.removable && !disk.read_only && !disk.optical
}

fn is_meant(hints: &DiskHints, disk: &DiskFacts) -> bool {
    // udev and the kernel may pad a serial or add a prefix to a WWN: compare what is left.
    let same = |hint: &Option<String>, fact: &Option<String>| match (hint, fact) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(hint), Some(fact)) => hint.trim() == fact.trim(),
    };
    let same_wwn = match (&hints.wwn, &disk.wwn) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(hint), Some(fact)) => bare_wwn(hint) == bare_wwn(fact),
    };
    let is_named = hints.name.as_deref().is_none_or(|name| {
        name.strip_prefix("/dev/").unwrap_or(name) == disk.name
            || disk.links.iter().any(|link| link == name)
    });
    let has_size = hints.size.is_none_or(|size| match size {
        SizeHint::AtLeast(bytes) => disk.size_bytes >= bytes,
        SizeHint::AtMost(bytes) => disk.size_bytes <= bytes,
        SizeHint::About(bytes) => disk.size_bytes.abs_diff(bytes) <= bytes / 100,
    });
    is_target(disk)
        && is_named
        && same(&hints.serial, &disk.serial)
        && same_wwn
        && same(&hints.model, &disk.model)
        && has_size
        && hints.rotational.is_none_or(|rotational| rotational == disk.rotational)
        && same(&hints.hctl, &disk.hctl)
}

fn bare_wwn(wwn: &str) -> String {
    let lower = wwn.trim().to_ascii_lowercase();
    for prefix in ["0x", "naa.", "eui.", "nvme."] {
        if let Some(rest) = lower.strip_prefix(prefix) {
            return rest.to_owned();
        }
    }
    lower
}

fn describe(disks: &[DiskFacts]) -> String {
    if disks.is_empty() {
        return "no disk at all".into();
    }
    let one = |disk: &DiskFacts| {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        format!(
            "{} (serial {}, wwn {}, model {}, {} bytes{})",
            disk.name,
            text(&disk.serial),
            text(&disk.wwn),
            text(&disk.model),
            disk.size_bytes,
            if disk.removable || disk.optical || disk.read_only { ", not a target" } else { "" }
        )
    };
    disks.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl SizeHint {
    pub(crate) fn parse(text: &str) -> Option<SizeHint> {
        if let Some(rest) = text.strip_prefix(">=") {
            return layout::bytes(rest).map(SizeHint::AtLeast);
        }
        if let Some(rest) = text.strip_prefix("<=") {
            return layout::bytes(rest).map(SizeHint::AtMost);
        }
        layout::bytes(text).map(SizeHint::About)
    }
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
            (hint(&|h| h.serial = Some("b2".into())), Err(0)),
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

    #[test]
    fn a_size_is_met_to_the_byte_or_within_a_hundredth() {
        const SIZE: u64 = 200_000;
        for (hint, least, most) in [
            (SizeHint::AtLeast(SIZE), SIZE, u64::MAX),
            (SizeHint::AtMost(SIZE), 1, SIZE),
            (SizeHint::About(SIZE), 198_000, 202_000),
        ] {
            let hints = DiskHints { size: Some(hint), ..DiskHints::default() };
            let fits = |size: u64| select(&hints, &[disk("sda", "A1", size)]).is_ok();
            assert!(fits(least) && fits(most), "{hint:?}");
            assert!(!fits(least - 1), "{hint:?}");
            assert!(most == u64::MAX || !fits(most + 1), "{hint:?}");
        }
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

    /// The stick with our task is `sda` when a BMC shows it early, and moves every other name by one.
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
