// SPDX-License-Identifier: AGPL-3.0-or-later
//! Edits the firmware's variables in the file that QEMU presents as its flash: as much of the format as is needed to
//! set the URL of the next boot, as a BMC does with its machine's firmware. Pure.
//!
//! ```text
//! firmware volume │ header (PI 1.7, vol. 3, 3.2.1) │ variable store │ header │ variable, variable, … ff ff
//! variable        │ header of 60 bytes │ name in UTF-16 │ value │ up to the next multiple of 4
//! ```
//!
//! The store is edk2's (`MdeModulePkg/Include/Guid/VariableFormat.h`), with room for signatures. The
//! variables are UEFI's (2.10, 3.1.3 and 3.3). No machine runs while this writes.

use std::ops::Range;

use url::Url;
use uuid::{Uuid, uuid};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("this is no volume with variables of UEFI")]
    NoStore,
    #[error("there is no room for {wanted} more bytes; delete the file, and it is made anew")]
    Full { wanted: usize },
    #[error("a URL of {0} bytes is too long")]
    LongUrl(usize),
}

const FV_SIGNATURE: Range<usize> = 40..44;
const FV_HEADER_LENGTH: usize = 48;
/// `gEfiAuthenticatedVariableGuid`.
const STORE: Uuid = uuid!("aaf32c78-947b-439a-a180-2e144ec37792");
const STORE_HEADER: usize = 28;
const VARIABLE_HEADER: usize = 60;
const VARIABLE_BEGINS: [u8; 2] = 0x55aa_u16.to_le_bytes();
/// Bits of a state are cleared one by one, as in flash.
const STATE_ADDED: u8 = 0x3f;
const STATE_DELETED_BIT: u8 = 0x02;
/// Non-volatile, for the firmware and for the system.
const ATTRIBUTES: u32 = 7;
/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/// Far from the numbers that the firmware assigns to the boot options that it finds.
const OPTION: u16 = 0x4854;
const OPTION_NAME: &str = "Boot4854";
const OPTION_ACTIVE: u32 = 1;
const DESCRIPTION: &str = "UEFI HTTP boot, by the BMC";
/// A device path of a URI alone (UEFI 2.10, 3.1.2 and 10.3.4.23): the firmware tries it on each network
/// card that can.
const URI_NODE: [u8; 2] = [3, 24];
const END_NODE: [u8; 4] = [0x7f, 0xff, 4, 0];
/// Sets the URL of the next boot, and of that boot only.
pub(crate) fn boot_next_from(volume: &mut [u8], url: &Url) -> Result<(), Error> {
    let option = load_option(url).ok_or(Error::LongUrl(url.as_str().len()))?;
    put(volume, OPTION_NAME, &option)?;
    put(volume, "BootNext", &OPTION.to_le_bytes())
}

/// An `EFI_LOAD_OPTION`. `None` if the URL is too long for it.
fn load_option(url: &Url) -> Option<Vec<u8>> {
    let uri = url.as_str().as_bytes();
    let node = u16::try_from(4 + uri.len()).ok()?;
    let path = node.checked_add(u16::try_from(END_NODE.len()).ok()?)?;
    let mut option = OPTION_ACTIVE.to_le_bytes().to_vec();
    option.extend(path.to_le_bytes());
    option.extend(utf16(DESCRIPTION));
    option.extend(URI_NODE);
    option.extend(node.to_le_bytes());
    option.extend(uri);
    option.extend(END_NODE);
    Some(option)
}

/// UTF-16 with a terminating zero.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Deletes the old value of a variable, and adds the new one.
fn put(volume: &mut [u8], name: &str, value: &[u8]) -> Result<(), Error> {
    let room = variables(volume).ok_or(Error::NoStore)?;
    let name = utf16(name);
    let mut at = room.start;
    while let Some(variable) = Variable::at(volume, at, room.end) {
        if variable.is(volume, &name) {
            volume[at + 2] &= !STATE_DELETED_BIT;
        }
        at = variable.next;
    }
    let mut new = VARIABLE_BEGINS.to_vec();
    new.extend([STATE_ADDED, 0]);
    new.extend(ATTRIBUTES.to_le_bytes());
    // Count, time and key of a signature, which it does not have.
    new.extend([0; 8 + 16 + 4]);
    for part in [&name, value] {
        new.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    }
    new.extend(GLOBAL.to_bytes_le());
    new.extend(&name);
    new.extend(value);
    let full = Error::Full { wanted: new.len() };
    let free = volume.get_mut(at..at + new.len()).filter(|_| at + new.len() <= room.end);
    let free = free.ok_or(full)?;
    free.copy_from_slice(&new);
    Ok(())
}

/// The range that holds the variables.
fn variables(volume: &[u8]) -> Option<Range<usize>> {
    if volume.get(FV_SIGNATURE)? != b"_FVH" {
        return None;
    }
    let store = usize::from(u16::from_le_bytes(number(volume, FV_HEADER_LENGTH)?));
    if number::<16>(volume, store)? != STORE.to_bytes_le() {
        return None;
    }
    let size = usize::try_from(u32::from_le_bytes(number(volume, store + 16)?)).ok()?;
    let end = store.checked_add(size)?;
    (end <= volume.len()).then_some(store + STORE_HEADER..end)
}

/// The place of one variable.
struct Variable {
    name: Range<usize>,
    state: u8,
    vendor: [u8; 16],
    next: usize,
}

impl Variable {
    /// The variable that begins here, if there is one.
    fn at(volume: &[u8], at: usize, end: usize) -> Option<Variable> {
        if number::<2>(volume, at)? != VARIABLE_BEGINS {
            return None;
        }
        let length =
            |offset: usize| usize::try_from(u32::from_le_bytes(number(volume, at + offset)?)).ok();
        let name = at + VARIABLE_HEADER..(at + VARIABLE_HEADER).checked_add(length(36)?)?;
        let next = name.end.checked_add(length(40)?)?.checked_next_multiple_of(4)?;
        let [_, _, state, ..] = number::<4>(volume, at)?;
        let vendor = number(volume, at + 44)?;
        (next <= end).then_some(Variable { name, state, vendor, next })
    }

    fn is(&self, volume: &[u8], name: &[u8]) -> bool {
        self.state == STATE_ADDED
            && self.vendor == GLOBAL.to_bytes_le()
            && volume.get(self.name.clone()) == Some(name)
    }
}

fn number<const N: usize>(volume: &[u8], at: usize) -> Option<[u8; N]> {
    volume.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume with room for this many bytes of variables.
    fn empty(room: usize) -> Vec<u8> {
        let header = 72_u16;
        let mut volume = vec![0; usize::from(header)];
        volume[FV_SIGNATURE].copy_from_slice(b"_FVH");
        volume[FV_HEADER_LENGTH..FV_HEADER_LENGTH + 2].copy_from_slice(&header.to_le_bytes());
        volume.extend(STORE.to_bytes_le());
        volume.extend(u32::try_from(STORE_HEADER + room).unwrap().to_le_bytes());
        volume.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
        volume.resize(volume.len() + room, 0xff);
        volume
    }

    /// The valid variables, by name.
    fn read(volume: &[u8]) -> Vec<(String, Vec<u8>)> {
        let room = variables(volume).unwrap();
        let (mut at, mut found) = (room.start, Vec::new());
        while let Some(variable) = Variable::at(volume, at, room.end) {
            let length = u32::from_le_bytes(number(volume, at + 40).unwrap()) as usize;
            let units = volume[variable.name.clone()].chunks(2);
            let units: Vec<u16> = units.map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
            let name = String::from_utf16(&units).unwrap().trim_end_matches('\0').to_owned();
            let value = volume[variable.name.end..variable.name.end + length].to_vec();
            if variable.state == STATE_ADDED {
                found.push((name, value));
            }
            at = variable.next;
        }
        assert!(volume[at..].iter().all(|byte| *byte == 0xff), "the rest is free");
        found
    }

    #[test]
    fn the_next_boot_is_from_the_last_url_that_was_said() {
        let mut volume = empty(1 << 10);
        for url in ["https://192.0.2.5:8443/m/a/maintenance.iso", "http://192.0.2.5/m/b.iso"] {
            let url: Url = url.parse().unwrap();
            boot_next_from(&mut volume, &url).unwrap();
            let found = read(&volume);
            let [(option, value), (next, number)] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((option.as_str(), next.as_str()), ("Boot4854", "BootNext"));
            assert_eq!(number, &[0x54, 0x48]);
            let description = 6 + 2 * (DESCRIPTION.len() + 1);
            let path = &value[description..];
            assert_eq!(value[..6], [1, 0, 0, 0, path.len() as u8, 0]);
            assert_eq!(path[..4], [3, 24, path.len() as u8 - 4, 0]);
            assert_eq!(&path[4..path.len() - 4], url.as_str().as_bytes());
            assert_eq!(path[path.len() - 4..], END_NODE);
        }
    }

    #[test]
    fn what_is_no_store_or_has_no_room_stays_as_it_is() {
        let url: Url = "http://192.0.2.5/m/b.iso".parse().unwrap();
        let mut small = empty(100);
        let before = small.clone();
        let error = boot_next_from(&mut small, &url).unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error}");
        assert!(small == before);
        for mut wrong in [vec![], vec![0xff; 4096], empty(64)[..80].to_vec()] {
            let error = boot_next_from(&mut wrong, &url).unwrap_err();
            assert!(matches!(error, Error::NoStore), "{error}");
        }
        let long: Url = format!("http://192.0.2.5/{}", "a".repeat(1 << 16)).parse().unwrap();
        assert!(matches!(boot_next_from(&mut empty(64), &long), Err(Error::LongUrl(_))));
    }
}
