// SPDX-License-Identifier: AGPL-3.0-or-later
//! POSIX access control lists: converts the text in an archive (acl(5), long or short form, with an
//! optional numeric fourth field as libarchive writes it) to the kernel's binary form.

use std::collections::BTreeMap;

/// `struct posix_acl_xattr_header` of linux/posix_acl_xattr.h.
const VERSION: u32 = 2;
const UNDEFINED_ID: u32 = u32::MAX;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    #[error("{0:?} is not an entry of an access control list")]
    Malformed(String),
    #[error("it names {0:?}, whom the image does not know")]
    UnknownName(String),
}

/// The users and groups of an image, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    users: BTreeMap<Vec<u8>, u32>,
    groups: BTreeMap<Vec<u8>, u32>,
}

impl Names {
    /// From passwd(5) and group(5). Malformed lines are ignored.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Names {
        Names { users: ids(passwd), groups: ids(group) }
    }
}

fn ids(table: &[u8]) -> BTreeMap<Vec<u8>, u32> {
    let line = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?.to_vec();
        let id = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        Some((name, id))
    };
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// The value of `system.posix_acl_*`.
pub fn parse(text: &[u8], names: &Names) -> Result<Vec<u8>, AclError> {
    let mut entries = Vec::new();
    for entry in text.split(|byte| matches!(byte, b'\n' | b',')) {
        let entry = entry.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if !entry.is_empty() {
            entries.push(parse_entry(entry, names)?);
        }
    }
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Ok(value)
}

fn parse_entry(entry: &[u8], names: &Names) -> Result<(u16, u32, u16), AclError> {
    let malformed =
        || AclError::Malformed(String::from_utf8_lossy(entry).chars().take(100).collect());
    let fields: Vec<&[u8]> = entry.split(|byte| *byte == b':').map(<[u8]>::trim_ascii).collect();
    let (kind, name, permissions, id) = match fields.as_slice() {
        [kind, permissions] => (*kind, b"".as_slice(), *permissions, None),
        [kind, name, permissions] => (*kind, *name, *permissions, None),
        [kind, name, permissions, id] => (*kind, *name, *permissions, Some(*id)),
        _ => return Err(malformed()),
    };
    let mut bits = 0;
    for letter in permissions {
        bits |= match letter {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return Err(malformed()),
        };
    }
    let (own, named, known) = match kind {
        b"user" | b"u" => (USER_OBJ, USER, &names.users),
        b"group" | b"g" => (GROUP_OBJ, GROUP, &names.groups),
        b"mask" | b"m" if name.is_empty() => return Ok((MASK, UNDEFINED_ID, bits)),
        b"other" | b"o" if name.is_empty() => return Ok((OTHER, UNDEFINED_ID, bits)),
        _ => return Err(malformed()),
    };
    if name.is_empty() {
        return Ok((own, UNDEFINED_ID, bits));
    }
    let number = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let id = known.get(name).copied().or_else(|| number(name)).or_else(|| id.and_then(number));
    let id = id.ok_or_else(|| AclError::UnknownName(String::from_utf8_lossy(name).into_owned()))?;
    Ok((named, id, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    #[test]
    fn every_writing_of_a_list_gives_the_kernels_form() {
        let names = Names::parse(b"root:x:0:0::/:\nanna:x:1000:1000::/:\nodd\n", b"staff:x:50:\n");
        let expected = binary(&[
            (1, 7, u32::MAX),
            (2, 6, 1000),
            (4, 5, u32::MAX),
            (8, 4, 50),
            (0x10, 7, u32::MAX),
            (0x20, 0, u32::MAX),
        ]);
        for text in [
            "user::rwx\nuser:1000:rw-\ngroup::r-x\ngroup:50:r--\nmask::rwx\nother::---\n",
            "user::rwx,user:anna:rw-,group::r-x,group:staff:r--,mask::rwx,other::---",
            "u::rwx\ng:staff:r--\t#effective:r--\ng::r-x\nm::rwx\no::---\nu:anna:rw-",
            "user::rwx,user:nobody_here:rw-:1000,group::r-x,group:x:r--:50,mask::rwx,other::---",
        ] {
            assert_eq!(parse(text.as_bytes(), &names), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["user", "user::rwz", "king::rwx", "mask:anna:rwx", "u:1:2:3:4", "user:+1x:r"] {
            assert!(parse(text.as_bytes(), &Names::default()).is_err(), "{text}");
        }
        let unknown = parse(b"user:anna:r--", &Names::default());
        assert_eq!(unknown, Err(AclError::UnknownName("anna".into())));
    }
}
