// SPDX-License-Identifier: AGPL-3.0-or-later
//! One boot entry as bytes (UEFI 2.10, 3.1.3): builds ours, and parses the fields of others that we need. Pure.

use crate::gpt::Entry;

const LOAD_OPTION_ACTIVE: u32 = 1;
/// Media device path: hard drive and file (UEFI 2.10, 10.3.5).
pub const HARD_DRIVE: [u8; 4] = [4, 1, 42, 0];
pub const END: [u8; 4] = [0x7f, 0xff, 4, 0];
/// How a hard drive's node identifies the disk: by the MBR's signature, or by the partition's GUID.
const SIGNATURE_MBR: u8 = 1;
const SIGNATURE_GUID: u8 = 2;

/// The fields of a `Boot####` entry that we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOption {
    pub is_active: bool,
    pub label: String,
    /// The partition in the format of the kernel's PARTUUID, if the entry names one.
    pub partition: Option<String>,
}

/// EFI_LOAD_OPTION (UEFI 2.10, 3.1.3).
pub fn load_option(label: &str, file: &str, esp: &Entry) -> Vec<u8> {
    let utf16 = |text: &str| -> Vec<u8> {
        text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
    };
    let mut path = HARD_DRIVE.to_vec();
    path.extend(esp.number.to_le_bytes());
    path.extend(esp.first_sector.to_le_bytes());
    path.extend((esp.last_sector - esp.first_sector + 1).to_le_bytes());
    path.extend(guid_bytes(&esp.guid));
    // Format: GUID partition table; signature: a GUID.
    path.extend([2, SIGNATURE_GUID]);
    let file = utf16(file);
    let length = u16::try_from(file.len() + 4).expect("our file names are short");
    path.extend([4, 4]);
    path.extend(length.to_le_bytes());
    path.extend(file);
    path.extend(END);
    let path_length = u16::try_from(path.len()).expect("our paths are short");
    [LOAD_OPTION_ACTIVE.to_le_bytes().as_slice(), &path_length.to_le_bytes(), &utf16(label), &path]
        .concat()
}

pub fn parse(option: &[u8]) -> Option<LoadOption> {
    let attributes = u32::from_le_bytes(option.get(..4)?.try_into().ok()?);
    let path_length = usize::from(u16::from_le_bytes(option.get(4..6)?.try_into().ok()?));
    let units: Vec<u16> = option
        .get(6..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let path = option.get(6 + 2 * (units.len() + 1)..)?;
    Some(LoadOption {
        is_active: attributes & LOAD_OPTION_ACTIVE != 0,
        label: String::from_utf16_lossy(&units),
        partition: partition(path.get(..path_length).unwrap_or(path)),
    })
}

/// The partition of a device path, both of a full path from the processor and of a path that begins at the partition.
fn partition(mut path: &[u8]) -> Option<String> {
    loop {
        let length = usize::from(u16::from_le_bytes(path.get(2..4)?.try_into().ok()?));
        let node = path.get(..length.max(END.len()))?;
        if node.starts_with(&HARD_DRIVE) {
            let number = u32::from_le_bytes(node.get(4..8)?.try_into().ok()?);
            let signature = node.get(24..40)?;
            return match *node.get(41)? {
                SIGNATURE_GUID => Some(crate::gpt::guid(signature)),
                SIGNATURE_MBR => {
                    let disk = u32::from_le_bytes(signature.get(..4)?.try_into().ok()?);
                    Some(format!("{disk:08x}-{number:02x}"))
                }
                _ => None,
            };
        }
        if node.starts_with(&END) {
            return None;
        }
        path = path.get(node.len()..)?;
    }
}

/// The inverse of [`crate::gpt::guid`].
fn guid_bytes(text: &str) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = text.split('-').map(hex_bytes).collect();
    let mut bytes = Vec::new();
    for (at, mut field) in fields.into_iter().enumerate() {
        if at < 3 {
            field.reverse();
        }
        bytes.extend(field);
    }
    bytes
}

fn hex_bytes(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    text.as_bytes().chunks_exact(2).map(|bytes| pair(bytes).unwrap_or_default()).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const GUID: &str = "c12a7328-f81f-81d2-ba4b-00a0c93ec93b";

    pub fn esp(guid: &str) -> Entry {
        Entry {
            number: 1,
            type_guid: String::new(),
            guid: guid.into(),
            first_sector: 2048,
            last_sector: 1_050_623,
            name: String::new(),
        }
    }

    fn option(label: &str, guid: &str) -> Vec<u8> {
        load_option(label, "\\EFI\\debian\\shimx64.efi", &esp(guid))
    }

    #[test]
    fn an_entry_has_the_bytes_that_the_specification_asks_for() {
        let expected = "\
01000000\
6200\
640065006200690061006e000000\
04012a00\
01000000\
0008000000000000\
0000100000000000\
28732ac11ff8d281ba4b00a0c93ec93b\
0202\
04043400\
5c004500460049005c00640065006200690061006e005c00\
7300680069006d007800360034002e006500660069000000\
7fff0400";
        let bytes = option("debian", GUID);
        assert_eq!(hex::encode(&bytes), expected);
        let parsed =
            LoadOption { is_active: true, label: "debian".into(), partition: Some(GUID.into()) };
        assert_eq!(parse(&bytes), Some(parsed));
    }

    #[test]
    fn a_partition_is_found_anywhere_in_a_device_path() {
        let mbr = [
            &[4, 1, 42, 0, 2, 0, 0, 0][..],
            &[0; 16],
            &[0x78, 0x56, 0x34, 0x12],
            &[0; 12],
            &[1, SIGNATURE_MBR],
            &END,
        ]
        .concat();
        assert_eq!(partition(&mbr).as_deref(), Some("12345678-02"));
        // An invalid length ends the search.
        for path in [&[2, 1, 0, 0][..], &[2, 1, 255, 255, 0], &[4, 1, 42, 0, 1], &[], &END] {
            assert_eq!(partition(path), None, "{path:?}");
        }
    }
}
