// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whether two SMBIOS UUIDs can be of one machine. What says nothing never contradicts.

/// What firmware shows where nobody set a UUID. All zeros and all ones are the standard's own (DSP0134,
/// 7.2.1: not present, not set); the other is the default of AMI's firmware, on boards of many vendors.
const PLACEHOLDERS: [u128; 3] = [0, u128::MAX, 0x0300_0200_0400_0500_0006_0007_0008_0009];

/// Whether these are the UUIDs of two machines. Before version 2.6 the standard left open in which order
/// the bytes of the first three fields are (DSP0134, 7.2.1), so BMC and kernel may differ in that alone.
pub fn contradict(one: &str, other: &str) -> bool {
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => one != other && swapped(one) != other,
        (None, _) | (_, None) => false,
    }
}

/// `None` for what names no machine.
fn parse(text: &str) -> Option<u128> {
    let digits: String = text.trim().chars().filter(|letter| *letter != '-').collect();
    // `from_str_radix` takes a sign.
    if digits.len() != 32 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let uuid = u128::from_str_radix(&digits, 16).ok()?;
    let is_placeholder = PLACEHOLDERS.contains(&uuid) || PLACEHOLDERS.contains(&swapped(uuid));
    (!is_placeholder).then_some(uuid)
}

/// With the bytes of its first three fields, of 4, 2 and 2 bytes, the other way round.
fn swapped(uuid: u128) -> u128 {
    let mut bytes = uuid.to_be_bytes();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    u128::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_known_uuids_of_two_machines_contradict() {
        let mine = "4c4c4544-004b-4d10-8032-b7c04f463533";
        for (other, is_contradiction) in [
            (mine, false),
            ("4C4C4544-004B-4D10-8032-B7C04F463533", false),
            (" 4c4c4544004b4d108032b7c04f463533\n", false),
            ("44454c4c-4b00-104d-8032-b7c04f463533", false),
            ("4c4c4544-004b-4d10-8032-b7c04f463534", true),
            ("44454c4c-004b-4d10-8032-b7c04f463533", true),
            ("", false),
            ("unknown", false),
            ("+c4c4544-004b-4d10-8032-b7c04f463534", false),
            ("00000000-0000-0000-0000-000000000000", false),
            ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", false),
            ("03000200-0400-0500-0006-000700080009", false),
            ("00020003-0004-0005-0006-000700080009", false),
        ] {
            assert_eq!(contradict(mine, other), is_contradiction, "{other:?}");
            assert_eq!(contradict(other, mine), is_contradiction, "{other:?}");
        }
    }
}
