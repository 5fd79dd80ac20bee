// SPDX-License-Identifier: AGPL-3.0-or-later
//! SMBIOS UUIDs: which of them identify a machine, and whether two identify the same one.

/// UUIDs that firmware reports if none was set, and UUIDs that many boards share:
/// - the default of AMI's firmware, on boards of many vendors;
/// - what Dell's formula gives for a service tag of blanks or of zeros.
///
/// All zeros and all ones are defined by the standard itself (DSP0134, 7.2.1: not present, not set). The rule for
/// one repeated byte covers them.
const PLACEHOLDERS: [u128; 4] = [
    0x0300_0200_0400_0500_0006_0007_0008_0009,
    0x4c4c_4544_0020_2010_8020_a0c0_4f20_2020,
    0x4c4c_4544_0000_2010_8020_80c0_4f20_2020,
    0x4c4c_4544_0000_0010_8000_80c0_4f00_0000,
];

/// Whether this is a UUID that identifies a machine.
pub fn is_real(text: &str) -> bool {
    parse(text).is_some()
}

/// Whether two UUIDs are of the same machine. Before version 2.6 the standard did not define the byte order of the
/// first three fields (DSP0134, 7.2.1), so the BMC and the kernel may differ in that alone.
pub fn are_same(one: &str, other: &str) -> bool {
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => one == other || swapped(one) == other,
        (None, _) | (_, None) => false,
    }
}

/// The service tag that is encoded in a Dell's UUID, in ASCII around fixed bytes:
/// `44454c4c-00BB-CC10-80DD-AAc04fEEFFGG` for the tag `ABCDEFG`, with the highest bit of `AA` set. Either byte order
/// is accepted.
pub fn service_tag(text: &str) -> Option<String> {
    let uuid = parse(text)?;
    [uuid, swapped(uuid)].into_iter().find_map(|uuid| {
        let bytes = uuid.to_be_bytes();
        let [b'L', b'L', b'E', b'D', 0, two, three, 0x10, 0x80, four, first, 0xc0, 0x4f, rest @ ..] = bytes else {
            return None;
        };
        let tag = [first.checked_sub(0x80)?, two, three, four].into_iter().chain(rest);
        let tag: String = tag.map(char::from).collect();
        tag.chars().all(|letter| letter.is_ascii_alphanumeric()).then_some(tag)
    })
}

/// Whether this has the format of a UUID, placeholder or not.
pub fn is_written_as_one(text: &str) -> bool {
    number(text).is_some()
}

/// Parses a UUID. `None` if it does not identify a machine.
fn parse(text: &str) -> Option<u128> {
    let uuid = number(text)?;
    let [first, rest @ ..] = uuid.to_be_bytes();
    let is_placeholder = rest.iter().all(|byte| *byte == first)
        || PLACEHOLDERS.contains(&uuid)
        || PLACEHOLDERS.contains(&swapped(uuid));
    (!is_placeholder).then_some(uuid)
}

fn number(text: &str) -> Option<u128> {
    let digits: String = text.trim().chars().filter(|letter| *letter != '-').collect();
    // `from_str_radix` would accept a sign.
    let is_hex = digits.chars().all(|digit| digit.is_ascii_hexdigit());
    (digits.len() == 32 && is_hex).then(|| u128::from_str_radix(&digits, 16).ok()).flatten()
}

/// The UUID with the bytes of its first three fields (4, 2 and 2 bytes) reversed.
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
    fn one_machine_has_one_uuid_in_either_byte_order() {
        let mine = "4c4c4544-004b-4d10-8032-b7c04f463533";
        for (other, is_same) in [
            (mine, true),
            ("4C4C4544-004B-4D10-8032-B7C04F463533", true),
            (" 4c4c4544004b4d108032b7c04f463533\n", true),
            ("44454c4c-4b00-104d-8032-b7c04f463533", true),
            ("4c4c4544-004b-4d10-8032-b7c04f463534", false),
            ("44454c4c-004b-4d10-8032-b7c04f463533", false),
            ("", false),
            ("unknown", false),
            ("+c4c4544-004b-4d10-8032-b7c04f463533", false),
        ] {
            assert_eq!(are_same(mine, other), is_same, "{other:?}");
            assert_eq!(are_same(other, mine), is_same, "{other:?}");
        }
    }

    #[test]
    fn what_many_machines_have_is_no_uuid() {
        for text in [
            "",
            "Not Settable",
            "00000000-0000-0000-0000-000000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "20202020-2020-2020-2020-202020202020",
            "03000200-0400-0500-0006-000700080009",
            "00020003-0004-0005-0006-000700080009",
            "4c4c4544-0020-2010-8020-a0c04f202020",
            "44454c4c-2000-1020-8020-a0c04f202020",
            "4c4c4544-0000-2010-8020-80c04f202020",
            "4c4c4544-0000-0010-8000-80c04f000000",
            "4c4c4544-004b-4d10-8032-b7c04f46353",
            "4c4c4544-004b-4d10-8032-b7c04f4635330",
        ] {
            assert!(!is_real(text), "{text:?}");
            assert!(!are_same(text, text), "{text:?}");
        }
        assert!(is_real("4c4c4544-004b-4d10-8032-b7c04f463533"));
    }

    #[test]
    fn a_dells_uuid_spells_its_service_tag() {
        for (uuid, tag) in [
            ("4c4c4544-0056-4310-8032-b8c04f4a4d31", Some("8VC2JM1")),
            ("44454c4c-5600-1043-8032-b8c04f4a4d31", Some("8VC2JM1")),
            ("4c4c4544-0056-4310-8032-38c04f4a4d31", None),
            ("4c4c4544-0056-4310-8032-b8c04f4a4d2e", None),
            ("4c4c4545-0056-4310-8032-b8c04f4a4d31", None),
            ("30303031-3932-5355-4531-313156484e31", None),
            ("", None),
        ] {
            assert_eq!(service_tag(uuid).as_deref(), tag, "{uuid:?}");
        }
    }
}
