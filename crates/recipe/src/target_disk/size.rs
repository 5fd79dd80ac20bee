// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sizes of whole disks, written as on their labels. Partitions have their own sizes (`layout::Size`), in powers
//! of 1024.

/// A size in bytes, and how it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeHint {
    AtLeast(u64),
    AtMost(u64),
    About(u64),
}

/// Tolerance: a disk may differ from its label by one part in 100. Disks are slightly larger than their label (480 GB
/// are 480103981056 bytes), volumes of RAID controllers slightly smaller (479559942144). Sizes on the market differ by
/// more than 2 %.
const TOLERANCE_PARTS: u64 = 100;

impl SizeHint {
    /// Parses `480G`, `>=1.92 TB` or `<=2TiB`. Units are powers of 1000, as on a disk's label; units with an `i` are
    /// powers of 1024. Also `None` if this cannot be the size of a disk: zero, or more than 64 bits.
    pub(crate) fn parse(text: &str) -> Option<SizeHint> {
        let text = text.trim();
        let (hint, rest): (fn(u64) -> SizeHint, &str) =
            match (text.strip_prefix(">="), text.strip_prefix("<=")) {
                (Some(rest), _) => (SizeHint::AtLeast, rest),
                (None, Some(rest)) => (SizeHint::AtMost, rest),
                (None, None) => (SizeHint::About, text),
            };
        bytes(rest.trim_start()).map(hint)
    }

    pub(super) fn is_met_by(self, size_bytes: u64) -> bool {
        match self {
            SizeHint::AtLeast(bytes) => size_bytes >= bytes - bytes / TOLERANCE_PARTS,
            SizeHint::AtMost(bytes) => size_bytes <= bytes.saturating_add(bytes / TOLERANCE_PARTS),
            SizeHint::About(bytes) => size_bytes.abs_diff(bytes) <= bytes / TOLERANCE_PARTS,
        }
    }
}

fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = unit_bytes(unit.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let number =
        whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(fraction.parse().ok()?)?;
    let bytes = u64::try_from(number.checked_mul(unit)? / scale).ok()?;
    (bytes > 0).then_some(bytes)
}

fn unit_bytes(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (base, letter) = match unit.strip_suffix('i') {
        Some(letter) => (1024u128, letter),
        None => (1000, unit),
    };
    let power = match letter {
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    Some(base.pow(power))
}

/// A size as on a label, for messages: `480.10 GB`.
pub(super) fn on_the_label(size_bytes: u64) -> String {
    let (unit_bytes, unit) = match size_bytes {
        1_000_000_000_000.. => (1_000_000_000_000, "TB"),
        1_000_000_000.. => (1_000_000_000, "GB"),
        1_000_000.. => (1_000_000, "MB"),
        _ => return format!("{size_bytes} bytes"),
    };
    let hundredths = size_bytes / (unit_bytes / 100);
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use SizeHint::{About, AtLeast, AtMost};

    #[test]
    fn units_are_those_of_labels_unless_they_say_otherwise() {
        for (text, expected) in [
            ("480G", About(480_000_000_000)),
            ("480GB", About(480_000_000_000)),
            ("480 gb", About(480_000_000_000)),
            (">=480G", AtLeast(480_000_000_000)),
            (">= 1.92 TB", AtLeast(1_920_000_000_000)),
            ("<=2T", AtMost(2_000_000_000_000)),
            ("0.48t", About(480_000_000_000)),
            ("480Gi", About(480 << 30)),
            ("480GiB", About(480 << 30)),
            ("<=1.5tib", AtMost(3 << 39)),
            ("960197M", About(960_197_000_000)),
            ("468851544K", About(468_851_544_000)),
            ("15P", About(15_000_000_000_000_000)),
            ("1.001KiB", About(1025)),
        ] {
            assert_eq!(SizeHint::parse(text), Some(expected), "{text}");
        }
        for wrong in [
            "", "G", "480", "480X", "480Gx", "0G", "0.0T", "1..5T", "1.5.2T", ".5T", "5.T", "-1G",
            "99999P", ">480G", "=>480G", "1e3G", "480G B", "480iB", "٤G",
        ] {
            assert_eq!(SizeHint::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_label_is_met_by_what_is_sold_under_it_and_by_nothing_beside_it() {
        /// Sizes by IDEMA LBA1-03, which manufacturers follow, and one volume of a RAID controller.
        const SOLD: &[(&str, u64)] = &[
            ("240G", 240_057_409_536),
            ("250G", 250_059_350_016),
            ("480G", 480_103_981_056),
            ("480G", 479_559_942_144),
            ("500G", 500_107_862_016),
            ("512G", 512_110_190_592),
            ("800G", 800_166_076_416),
            ("960G", 960_197_124_096),
            ("1T", 1_000_204_886_016),
            ("1.6T", 1_600_321_314_816),
            ("1.92T", 1_920_383_410_176),
            ("2T", 2_000_398_934_016),
            ("3.84T", 3_840_755_982_336),
            ("4T", 4_000_787_030_016),
            ("7.68T", 7_681_501_126_656),
            ("20T", 20_000_588_955_648),
        ];
        let hint = |operator: &str, label: &str| {
            SizeHint::parse(&format!("{operator}{label}")).expect("a label is a size")
        };
        for (label, _) in SOLD {
            for (other, size_bytes) in SOLD {
                let (wanted, other) = (hint("", label), hint("", other));
                let (About(wanted_bytes), About(other_bytes)) = (wanted, other) else {
                    panic!("neither has an operator")
                };
                let told = format!("{label} and {size_bytes}");
                assert_eq!(wanted.is_met_by(*size_bytes), wanted_bytes == other_bytes, "{told}");
                let at_least = hint(">=", label).is_met_by(*size_bytes);
                assert_eq!(at_least, other_bytes >= wanted_bytes, ">= {told}");
                let at_most = hint("<=", label).is_met_by(*size_bytes);
                assert_eq!(at_most, other_bytes <= wanted_bytes, "<= {told}");
            }
        }
    }

    #[test]
    fn the_tolerance_is_a_hundredth() {
        const SIZE: u64 = 200_000;
        for (hint, least, most) in [
            (AtLeast(SIZE), 198_000, u64::MAX),
            (AtMost(SIZE), 0, 202_000),
            (About(SIZE), 198_000, 202_000),
            (AtMost(u64::MAX), 0, u64::MAX),
        ] {
            assert!(hint.is_met_by(least) && hint.is_met_by(most), "{hint:?}");
            assert!(least == 0 || !hint.is_met_by(least - 1), "{hint:?}");
            assert!(most == u64::MAX || !hint.is_met_by(most + 1), "{hint:?}");
        }
    }

    #[test]
    fn messages_have_the_size_of_the_label() {
        for (size_bytes, expected) in [
            (480_103_981_056, "480.10 GB"),
            (1_920_383_410_176, "1.92 TB"),
            (999_999_999, "999.99 MB"),
            (512, "512 bytes"),
        ] {
            assert_eq!(on_the_label(size_bytes), expected);
        }
    }
}
