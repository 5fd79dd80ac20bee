// SPDX-License-Identifier: AGPL-3.0-or-later
//! Replacements for everything that identifies a machine, its network or its users. The same original always gets the
//! same replacement. A replacement is recognized by its form and kept, so a capture of a capture is the same. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The kind of an original. Replacements are numbered separately for each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A serial number of a part, a service tag, or a globally unique name.
    Serial,
    Uuid,
    Mac,
    /// Any other long hexadecimal number: a WWN, a fingerprint, a GUID.
    Hex,
    Ipv4,
    Ipv6,
    Host,
    User,
    Email,
    Url,
    File,
}

/// Shorter names occur within too many words.
const ANYWHERE_CHARS_MIN: usize = 5;
/// From this length on, a name is also replaced within a longer word, such as a serial number in a host name.
const WITHIN_CHARS_MIN: usize = 7;
/// Shorter names identify nothing.
const WORD_CHARS_MIN: usize = 2;
/// Real names are not longer. Limited because each length is searched for.
const ANYWHERE_BYTES_MAX: usize = 128;
/// Length of the prefix by which names are looked up.
const HEAD_BYTES: usize = 4;
/// Prefixes by which replacements are recognized.
const OURS_SERIAL: &str = "XSN";
const OURS_MAC: &str = "020000";
const OURS_UUID: &str = "0000000000004000800";
const OURS_HEX: &str = "025e005e";
const OURS_URL: &str = "http://192.0.2.200/image-";

#[derive(Debug, Default)]
pub struct Names {
    /// By the canonical form of the original.
    known: HashMap<String, String>,
    counts: HashMap<Kind, u64>,
    /// Names that are replaced wherever they occur, in lower case.
    anywhere: HashMap<String, String>,
    /// The lengths of those names by their first bytes, longest first.
    lengths: HashMap<[u8; HEAD_BYTES], BTreeSet<Reverse<usize>>>,
    /// Names that are ordinary words or short. They are replaced only where nothing else can be meant.
    words: HashMap<String, String>,
}

impl Names {
    /// The replacement of an original, created if necessary. Case does not matter, nor how the digits of an address
    /// are separated.
    pub fn replacement(&mut self, kind: Kind, original: &str) -> String {
        let kind = fitting(kind, original);
        let canonical = canonical(kind, original);
        if is_ours(kind, &canonical) {
            return original.to_owned();
        }
        if let Some(known) = self.known.get(&canonical) {
            return like(kind, known, original);
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let new = made(kind, &canonical, *count);
        self.known.insert(canonical.clone(), new.clone());
        self.look_for(kind, original.trim(), &new);
        like(kind, &new, original)
    }

    /// The replacement of an original, if it already has one.
    pub fn known(&self, kind: Kind, original: &str) -> Option<String> {
        let new = self.known.get(&canonical(kind, original))?;
        Some(like(kind, new, original))
    }

    /// Registers a name to be replaced in all texts, in the forms in which programs write it.
    fn look_for(&mut self, kind: Kind, original: &str, new: &str) {
        match kind {
            Kind::Mac | Kind::Uuid | Kind::Hex | Kind::Ipv6 => return,
            Kind::Ipv4 => {
                // Host names may contain addresses, such as `ip-10-1-2-3`.
                for separator in ["-", "_"] {
                    self.put(&original.replace('.', separator), &new.replace('.', separator));
                }
                return;
            }
            Kind::Host => {
                if let (Some((label, _)), Some((of_new, _))) =
                    (original.split_once('.'), new.split_once('.'))
                {
                    self.put(label, of_new);
                }
            }
            Kind::Serial | Kind::User | Kind::Email | Kind::Url | Kind::File => {}
        }
        self.put(original, new);
        if original.contains(' ') {
            self.put(&original.replace(' ', "%20"), new);
            self.put(&original.replace(' ', "_"), new);
        }
    }

    fn put(&mut self, original: &str, new: &str) {
        let key = original.to_ascii_lowercase();
        if !is_telling(&key) {
            if key.chars().count() >= WORD_CHARS_MIN {
                self.words.entry(original.to_owned()).or_insert_with(|| new.to_owned());
            }
            return;
        }
        if key.len() <= ANYWHERE_BYTES_MAX
            && let Some(head) = key.as_bytes().first_chunk::<HEAD_BYTES>()
        {
            self.lengths.entry(*head).or_default().insert(Reverse(key.len()));
            self.anywhere.entry(key).or_insert_with(|| new.to_owned());
        }
    }

    /// The name that begins at a position of a lower-case text: its length and its replacement.
    pub fn at(&self, lower: &str, at: usize) -> Option<(usize, &str)> {
        let bytes = lower.as_bytes();
        let is_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        let lengths = self.lengths.get(bytes.get(at..)?.first_chunk::<HEAD_BYTES>()?)?;
        lengths.iter().find_map(|Reverse(length)| {
            let end = at + length;
            let name = lower.get(at..end)?;
            let new = self.anywhere.get(name)?;
            let is_apart = (at == 0 || !is_word(at - 1)) && !is_word(end);
            // `10-1-2-3` must not match within `10-1-2-34`.
            let is_digits = !name.bytes().any(|byte| byte.is_ascii_alphabetic());
            let is_address = is_digits && name.contains(['-', '_', '.']);
            let may_be_within = *length >= WITHIN_CHARS_MIN && !is_address;
            (is_apart || may_be_within).then_some((*length, new.as_str()))
        })
    }

    /// The replacement of a word, if the whole word is a name.
    pub fn word(&self, word: &str) -> Option<&str> {
        self.words.get(word).map(String::as_str)
    }
}

/// The kind by the original's digits, if they do not fit the kind that its property suggested.
fn fitting(kind: Kind, original: &str) -> Kind {
    let digits = original.bytes().filter(u8::is_ascii_hexdigit).count();
    let is_digits = original.trim().bytes().all(|byte| {
        byte.is_ascii_hexdigit() || matches!(byte, b':' | b'-' | b'.' | b' ' | b'{' | b'}')
    });
    match (kind, digits) {
        (Kind::Mac, 12) | (Kind::Uuid, 32) if is_digits => kind,
        (Kind::Mac | Kind::Uuid | Kind::Hex, 16..) if is_digits => Kind::Hex,
        (Kind::Mac | Kind::Uuid | Kind::Hex, _) => Kind::Serial,
        _ => kind,
    }
}

/// The form that is the same for all ways to write a name.
fn canonical(kind: Kind, original: &str) -> String {
    let lower = original.trim().to_ascii_lowercase();
    match kind {
        Kind::Mac | Kind::Uuid | Kind::Hex => {
            lower.chars().filter(char::is_ascii_hexdigit).collect()
        }
        Kind::Ipv6 => match lower.split('%').next().unwrap_or_default().parse::<Ipv6Addr>() {
            Ok(address) => address.to_string(),
            Err(_) => lower,
        },
        _ => lower,
    }
}

/// Whether an original is already a replacement.
fn is_ours(kind: Kind, canonical: &str) -> bool {
    let is_numbered = |head: &str| {
        let head = head.to_ascii_lowercase();
        canonical.strip_prefix(&head).is_some_and(|rest| {
            let number = rest.split('.').next().unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    match kind {
        Kind::Serial => is_numbered(OURS_SERIAL),
        Kind::Mac => canonical.starts_with(OURS_MAC),
        Kind::Uuid => canonical.starts_with(OURS_UUID),
        Kind::Hex => canonical.starts_with(OURS_HEX),
        Kind::Ipv4 => canonical.parse().is_ok_and(is_documentation),
        Kind::Ipv6 => canonical.starts_with("2001:db8:"),
        Kind::Host => is_numbered("host-") && canonical.ends_with(".example"),
        Kind::User => is_numbered("user-"),
        Kind::Email => canonical.starts_with("user-") && canonical.ends_with("@example.org"),
        Kind::Url => canonical.starts_with(OURS_URL),
        Kind::File => is_numbered("image-") && canonical.ends_with(".iso"),
    }
}

/// Blocks that no real network uses: for documentation (RFC 5737) and for benchmarks (RFC 2544).
pub fn is_documentation(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_documentation() || (first == 198 && second & 0xfe == 18)
}

/// Whether a text that contains the name refers to it. An ordinary word alone does not: `Systems` may be a host name.
fn is_telling(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b':' | b'@');
    name.len() >= ANYWHERE_CHARS_MIN && name.bytes().any(is_part)
}

fn made(kind: Kind, canonical: &str, count: u64) -> String {
    match kind {
        // As long as the original, if that is long enough.
        Kind::Serial => {
            let digits = canonical.chars().count().saturating_sub(OURS_SERIAL.len()).clamp(4, 20);
            format!("{OURS_SERIAL}{count:0digits$}")
        }
        Kind::Uuid => format!("{OURS_UUID}{count:013x}"),
        Kind::Mac => format!("{OURS_MAC}{:06x}", count & 0xff_ffff),
        Kind::Hex => {
            let digits = canonical.len().saturating_sub(OURS_HEX.len());
            format!("{OURS_HEX}{count:0digits$x}")
        }
        Kind::Ipv4 => ipv4(count).to_string(),
        // The block for documentation (RFC 3849).
        Kind::Ipv6 => format!("2001:db8::{count:x}"),
        Kind::Host => format!("host-{count}.example"),
        Kind::User => format!("user-{count}"),
        Kind::Email => format!("user-{count}@example.org"),
        Kind::Url => format!("{OURS_URL}{count}.iso"),
        Kind::File => format!("image-{count}.iso"),
    }
}

fn ipv4(count: u64) -> Ipv4Addr {
    let host = u8::try_from(count % 250 + 1).unwrap_or(1);
    let [more, block] = [(count / 250) >> 8, count / 250].map(|part| (part & 0xff) as u8);
    match count / 250 {
        0 => Ipv4Addr::new(192, 0, 2, host),
        1 => Ipv4Addr::new(198, 51, 100, host),
        2 => Ipv4Addr::new(203, 0, 113, host),
        _ => Ipv4Addr::new(198, 18 + (more & 1), block, host),
    }
}

/// Formats a replacement like the original: separators, surrounding spaces and case.
fn like(kind: Kind, new: &str, original: &str) -> String {
    let has = |of: fn(&char) -> bool| original.chars().any(|c| of(&c));
    let is_upper = has(char::is_ascii_uppercase) && !has(char::is_ascii_lowercase);
    let new = match kind {
        Kind::Mac | Kind::Uuid | Kind::Hex => {
            let mut digits = new.chars();
            let written = |c: char| match c.is_ascii_hexdigit() {
                true => digits.next().unwrap_or('0'),
                false => c,
            };
            let new: String = original.trim().chars().map(written).collect();
            if is_upper { new.to_ascii_uppercase() } else { new }
        }
        _ => new.to_owned(),
    };
    let start = original.len() - original.trim_start().len();
    let end = original.trim_end().len().max(start);
    format!("{}{new}{}", &original[..start], &original[end..])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_replacement_is_the_same_each_time_and_stays_when_it_is_met_again() {
        let mut names = Names::default();
        for (kind, original, expected) in [
            (Kind::Serial, "ABC1234", "XSN0001"),
            (Kind::Serial, "abc1234 ", "XSN0001 "),
            (Kind::Serial, "CZEXAMPLE1 ", "XSN0000002 "),
            (
                Kind::Uuid,
                "4c4c4544-0042-4310-8031-c1c04f333231",
                "00000000-0000-4000-8000-000000000001",
            ),
            (Kind::Uuid, "4C4C4544004243108031C1C04F333231", "00000000000040008000000000000001"),
            (Kind::Mac, "3C:EC:EF:A0:00:01", "02:00:00:00:00:01"),
            (Kind::Mac, "3cecefa00001", "020000000001"),
            (Kind::Mac, "3cec.efa0.0001", "0200.0000.0001"),
            (Kind::Mac, "no address", "XSN0000003"),
            (Kind::Hex, "5000C500A1B2C3D4", "025E005E00000001"),
            (Kind::Ipv4, "10.1.2.3", "192.0.2.2"),
            (Kind::Ipv6, "fe80::1", "2001:db8::1"),
            (Kind::Ipv6, "FE80:0::1%eth0", "2001:db8::1"),
            (Kind::Host, "bmc-42.mgmt.corp", "host-1.example"),
            (Kind::User, "jdoe", "user-1"),
        ] {
            let new = names.replacement(kind, original);
            assert_eq!(new, expected, "{original}");
            assert_eq!(names.replacement(kind, original), expected, "{original}, again");
            assert_eq!(Names::default().replacement(kind, &new), new, "{new} is ours");
        }
    }

    #[test]
    fn a_thousand_originals_have_a_thousand_replacements() {
        type Made = (Kind, fn(u32) -> String);
        let mut names = Names::default();
        let originals: [Made; 6] = [
            (Kind::Serial, |n| format!("S{n:04}")),
            (Kind::Mac, |n| format!("3c:ec:ef:a0:{:02x}:{:02x}", n >> 8, n & 255)),
            (Kind::Uuid, |n| format!("4c4c4544-0042-4310-8031-{n:012x}")),
            (Kind::Hex, |n| format!("5000c5{n:010x}")),
            (Kind::Ipv4, |n| format!("10.0.{}.{}", n >> 8, n & 255)),
            (Kind::Ipv6, |n| format!("fd00::{n:x}")),
        ];
        for (kind, original) in originals {
            let new: HashSet<_> =
                (0..1000).map(|n| names.replacement(kind, &original(n))).collect();
            assert_eq!(new.len(), 1000, "{kind:?}");
        }
    }
}
