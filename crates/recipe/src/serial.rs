// SPDX-License-Identifier: AGPL-3.0-or-later
//! Serial numbers that do not identify a machine. Two machines may report the same placeholder, so a job for such
//! a number could write to the wrong machine. The controller rejects it when a server is registered, and the machine
//! itself rejects it too.

/// Values that firmware reports in SMBIOS type 1 if no serial was set, in lower case and reduced to letters and
/// digits. Sources:
/// - ASRock's boards ship with "To Be Filled By O.E.M.", other boards with AMI's firmware with "Default
///   string", "System Serial Number" or "0123456789";
/// - dmidecode(8) says "Not Specified" for an absent string;
/// - systemd's hwdb has a list of useless DMI names: "Default string", "N/A", "O.E.M.", "OEM", "To be filled
///   by O.E.M.";
/// - ASUS' boards say "MB-1234567890" in type 2, and firmware without a setting "Not Settable" and "Not
///   Present" (dmidecode's words for UUIDs of ones and zeros);
/// - the rest are words that no vendor uses as a serial. The boards that report them were not identified.
const PLACEHOLDERS: [&str; 31] = [
    "tobefilledbyoem",
    "tobefilled",
    "defaultstring",
    "default",
    "systemserialnumber",
    "serialnumber",
    "chassisserialnumber",
    "baseboardserialnumber",
    "notspecified",
    "notavailable",
    "notapplicable",
    "notset",
    "none",
    "null",
    "na",
    "unknown",
    "empty",
    "invalid",
    "oem",
    "undefined",
    "unspecified",
    "filledbyoem",
    "notprovided",
    "notpresent",
    "notsettable",
    "noenclosure",
    "systemserial",
    "boardserial",
    "chassisserial",
    "mb1234567890",
    "tbd",
];

/// Digits that count up from 0 or 1, of any length: "0123456789", "12345678", "123456789012345".
const COUNTED: &str = "01234567890123456789012345678901234567890123456789012345678901234567";
/// Shorter sequences of digits may be a serial that somebody assigned.
const COUNTED_CHARS_MIN: usize = 5;

/// Whether this serial number is a placeholder.
pub fn is_placeholder(serial: &str) -> bool {
    let plain: String = serial
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    let mut letters = plain.chars();
    let first = letters.next();
    // Empty, dots, "0000000", "xxxxxxxx", "FFFFFFFF".
    let is_one_letter = letters.all(|letter| Some(letter) == first);
    let is_counted = plain.len() >= COUNTED_CHARS_MIN
        && (COUNTED.starts_with(&plain) || COUNTED[1..].starts_with(&plain));
    is_one_letter || is_counted || PLACEHOLDERS.contains(&plain.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_name_no_machine_however_they_are_written() {
        for serial in [
            "",
            " ",
            "...",
            "0",
            "0000000",
            "00000000-0000",
            "XXXXXXXXXXXX",
            "FFFFFFFF",
            "To Be Filled By O.E.M.",
            "To be filled by O.E.M",
            "TO_BE_FILLED_BY_OEM",
            "Default string",
            "Default-String",
            "System Serial Number",
            "Not Specified",
            "Not  Available",
            "N/A",
            "none",
            "0123456789",
            "123456789",
            "1234567890",
            "12345678901234567890",
            "O.E.M.",
            ". .",
            " , , ",
            "MB-1234567890",
            "Filled By OEM",
            "Not Provided",
            "Chassis Serial",
        ] {
            assert!(is_placeholder(serial), "{serial:?} passes");
        }
    }

    #[test]
    fn serials_of_real_machines_pass() {
        // Formats of Dell, HPE, Lenovo, Supermicro, Fujitsu, Cisco, hand-written ones for QEMU, and short ones.
        for serial in [
            "7XK2MN3",
            "CZJ0123456",
            "J300A1B2",
            "S12345678901234",
            "YM2R001234",
            "WZP21330ABC",
            "SN1",
            "SN123",
            "42",
            "1234",
            "0000001",
            "00000000000123",
            "ANOTHER-BOARD",
            "NONE-1",
        ] {
            assert!(!is_placeholder(serial), "{serial:?} is refused");
        }
    }
}
