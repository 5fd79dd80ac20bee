// SPDX-License-Identifier: AGPL-3.0-or-later
//! Recognizes addresses, long numbers and links in a text by their form alone, with any separators. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::names::{Kind, is_documentation};

/// Shorter hexadecimal numbers can be codes of any kind.
const HEX_DIGITS_MIN: usize = 16;
/// Shortest serial number, in letters and digits.
const SERIAL_CHARS_MIN: usize = 7;
/// Shorter words can decode to text by chance.
const BASE64_CHARS_MIN: usize = 16;
/// The longest URL schemes have about ten characters.
const SCHEME_BYTES_MAX: usize = 16;
/// Most groups of a hexadecimal number; a SHA-512 has this many.
const GROUPS_MAX: usize = 64;
/// Words and names are shorter than this.
const BLOB_CHARS_MIN: usize = 40;
/// Hosts that identify nobody: those of schemas, and reserved names (RFC 2606).
const PUBLIC_HOSTS: &[&str] = &["dmtf.org", "odata.org", "w3.org", "example"];
/// Last labels by which a name with a single dot is recognized as a host.
const HOST_ENDS: &[&str] = &[
    "local",
    "localdomain",
    "lan",
    "internal",
    "intern",
    "intranet",
    "corp",
    "home",
    "private",
    "com",
    "net",
    "org",
    "io",
    "dev",
    "cloud",
    "edu",
    "gov",
    "mil",
    "arpa",
];
/// Extensions of file names.
const FILE_ENDS: &[&str] = &[
    "iso", "img", "xml", "json", "gz", "zip", "bin", "efi", "exe", "log", "txt", "html", "hpm",
    "rom",
];

/// A recognized part of a text, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    pub length: usize,
    /// It may also be a plain number. It counts only if the same value was found elsewhere too.
    pub is_doubtful: bool,
}

fn sure(kind: Kind, length: usize) -> Option<Found> {
    Some(Found { kind, length, is_doubtful: false })
}

/// Recognizes what begins at a position of a text.
pub fn at(text: &str, at: usize) -> Option<Found> {
    let before = &text[..at];
    // Digits after `0x` are a number by themselves.
    let before = before.strip_suffix("0x").or(before.strip_suffix("0X")).unwrap_or(before);
    let is_within = before.bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = &text[at..];
    if is_within || !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '/'))
    {
        return None;
    }
    url(rest, at == 0)
        .or_else(|| uuid(rest))
        .or_else(|| groups(rest))
        .or_else(|| ipv6(text, at))
        .or_else(|| hex(rest))
        .or_else(|| ipv4(text, at))
        .or_else(|| dotted(text, at))
}

/// Recognizes a text as a whole.
pub fn whole(text: &str) -> Option<Kind> {
    let text = text.trim();
    at(text, 0)
        .filter(|found| found.length == text.len() && !found.is_doubtful)
        .map(|found| found.kind)
}

/// An address that identifies no machine: masks, loopback, broadcast and the like.
pub fn is_special(text: &str) -> bool {
    match text.trim().split(['%', '/']).next().unwrap_or_default().parse() {
        Ok(IpAddr::V4(address)) => {
            let [first, ..] = address.octets();
            let is_nobody = first == 0 || first >= 224 || address.is_loopback();
            is_nobody || is_documentation(address) || is_mask(address)
        }
        Ok(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.segments()[..2] == [0x2001, 0xdb8]
        }
        Err(_) => false,
    }
}

/// A word of capital letters and digits, like a serial number.
pub fn is_serial(word: &str) -> bool {
    let count = |of: fn(&u8) -> bool| word.bytes().filter(of).count();
    let (letters, digits) = (count(u8::is_ascii_uppercase), count(u8::is_ascii_digit));
    word.len() >= SERIAL_CHARS_MIN && letters + digits == word.len() && letters >= 2 && digits >= 2
}

/// The host of a URL's authority, without login and port.
pub fn host(authority: &str) -> &str {
    let host = authority.rsplit('@').next().unwrap_or_default();
    match host.split_once(']') {
        Some((address, _)) => address.trim_start_matches('['),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Replaces base64 and PEM data, whose content cannot be checked.
pub fn without_blobs(text: &str, hidden: &str) -> String {
    let text = match text.find("-----BEGIN ") {
        Some(start) => format!("{}{hidden}", &text[..start]),
        None => text.to_owned(),
    };
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c| !is_part(c)) {
        let run = piece.trim_end_matches(|c| !is_part(c));
        shown.push_str(if is_blob(run) { hidden } else { run });
        shown.push_str(&piece[run.len()..]);
    }
    shown
}

fn is_blob(run: &str) -> bool {
    if run.len() < BASE64_CHARS_MIN || run.contains("redfish") || run.starts_with('/') {
        return false;
    }
    let has = |of: fn(&u8) -> bool| run.bytes().any(|byte| of(&byte));
    let is_mixed =
        has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    let is_plain = !run.contains(['-', '_']);
    if is_mixed && run.len() >= BLOB_CHARS_MIN && (is_plain || run.starts_with("eyJ")) {
        return true;
    }
    let anyhow = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, anyhow);
    let standard = run.replace('-', "+").replace('_', "/");
    let is_text =
        |bytes: Vec<u8>| bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r'));
    engine.decode(standard).is_ok_and(is_text)
}

fn url(rest: &str, is_start: bool) -> Option<Found> {
    let start = if is_start && rest.starts_with("//") {
        2
    } else {
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let scheme = rest.bytes().take(SCHEME_BYTES_MAX).take_while(is_part).count();
        rest[scheme..].starts_with("://").then_some(scheme + 3)?
    };
    let is_end = |c: char| c.is_whitespace() || "\"'<>(){},;".contains(c);
    let authority = rest[start..].find(|c| is_end(c) || matches!(c, '/' | '?' | '#'));
    let path = authority.map_or(rest.len(), |length| start + length);
    let authority = &rest[start..path];
    let host = host(authority).to_ascii_lowercase();
    let is_public = PUBLIC_HOSTS
        .iter()
        .any(|own| host.strip_suffix(own).is_some_and(|sub| sub.is_empty() || sub.ends_with('.')));
    if host.is_empty() || is_public && !authority.contains('@') {
        return None;
    }
    let length = rest[path..].find(is_end).map_or(rest.len(), |length| path + length);
    sure(Kind::Url, rest[..length].trim_end_matches(['.', ':', '!', ']']).len())
}

fn is_over(rest: &str, length: usize) -> bool {
    !rest[length..].starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn uuid(rest: &str) -> Option<Found> {
    let text = rest.get(..36).filter(|_| is_over(rest, 36))?;
    let parts: Vec<_> = text.split('-').collect();
    let is_uuid = parts.len() == 5
        && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, length)| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
    (is_uuid && !is_one_digit(text)).then(|| sure(Kind::Uuid, 36))?
}

/// Hexadecimal digits in groups: `aa:bb:cc:dd:ee:ff`, `aa-bb-…`, `aabb.ccdd.eeff`, and longer ones.
fn groups(rest: &str) -> Option<Found> {
    let first = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    let separator =
        rest[first..].chars().next().filter(|c| matches!(c, ':' | '-' | '.' | '_' | ' '))?;
    let mut length = first;
    let mut count = 1;
    while count < GROUPS_MAX
        && let Some(next) = rest[length..].strip_prefix(separator)
    {
        let digits = next.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits != first || !is_over(next, digits) {
            break;
        }
        (length, count) = (length + 1 + first, count + 1);
    }
    let goes_on = separator == ':' && rest[length..].starts_with(':') && count < GROUPS_MAX;
    if !is_over(rest, length) || goes_on || is_one_digit(&rest[..length]) {
        return None;
    }
    let has_letter = rest[..length].bytes().any(|byte| byte.is_ascii_alphabetic());
    match (separator, first, count) {
        (' ' | '_' | '.', 2, _) if !has_letter => None,
        (_, 2, 6) => sure(Kind::Mac, length),
        ('.' | '-' | ':', 4, 3) if has_letter => sure(Kind::Mac, length),
        // Eight groups of four are an IPv6 address.
        (_, 2, 8..) => sure(Kind::Hex, length),
        _ => None,
    }
}

fn ipv6(text: &str, at: usize) -> Option<Found> {
    let rest = &text[at..];
    if text[..at].ends_with(':') {
        return None;
    }
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    let run = rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())].trim_end_matches('.');
    // A colon at the end belongs to the surrounding text.
    let run = if run.ends_with("::") { run } else { run.trim_end_matches(':') };
    if run.matches(':').count() < 2 || !is_over(rest, run.len()) || is_special(run) {
        return None;
    }
    run.parse::<Ipv6Addr>().ok()?;
    let zone = rest[run.len()..].strip_prefix('%').map_or(0, |zone| {
        1 + zone.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'.').count()
    });
    sure(Kind::Ipv6, run.len() + zone)
}

fn hex(rest: &str) -> Option<Found> {
    let length = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    if !is_over(rest, length) || is_one_digit(&rest[..length]) {
        return None;
    }
    let has = |of: fn(&u8) -> bool| rest[..length].bytes().any(|byte| of(&byte));
    let is_number = !has(u8::is_ascii_alphabetic) || !has(u8::is_ascii_digit);
    let kind = match length {
        12 => Kind::Mac,
        32 => Kind::Uuid,
        HEX_DIGITS_MIN.. => Kind::Hex,
        _ => return None,
    };
    Some(Found { kind, length, is_doubtful: is_number && length < HEX_DIGITS_MIN })
}

fn ipv4(text: &str, at: usize) -> Option<Found> {
    let before = &text[..at];
    // Part of a longer version number.
    let is_continued = before.ends_with('.')
        && before.trim_end_matches('.').ends_with(|c: char| c.is_ascii_digit());
    let rest = &text[at..];
    let run = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let run = rest[..run].trim_end_matches('.');
    run.parse::<Ipv4Addr>().ok()?;
    (!is_continued && is_over(rest, run.len()) && !is_special(run))
        .then(|| sure(Kind::Ipv4, run.len()))?
}

/// A host name, an email address, or an iSCSI or NVMe name.
fn dotted(text: &str, at: usize) -> Option<Found> {
    if text[..at].ends_with(['.', '-', '_', '@', '#', '%', '+']) {
        return None;
    }
    let rest = &text[at..];
    let is_part =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | '+' | '%');
    let run = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
    let run = run.trim_end_matches(['.', '-', '_', '@']);
    let lower = run.to_ascii_lowercase();
    if ["iqn.", "nqn."].iter().any(|head| lower.starts_with(head)) {
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';');
        return sure(Kind::Serial, rest.find(is_end).unwrap_or(rest.len()));
    }
    if let Some((user, domain)) = lower.split_once('@') {
        let is_annotation =
            ["odata.", "redfish.", "message."].iter().any(|own| domain.starts_with(own));
        return (!user.is_empty() && !domain.is_empty() && !is_annotation)
            .then(|| sure(Kind::Email, run.len()))?;
    }
    let labels: Vec<_> = run.split('.').collect();
    let last = *labels.last()?;
    let is_label = |label: &&str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_public = PUBLIC_HOSTS.iter().any(|own| lower.ends_with(&format!(".{own}")));
    let is_known_end = HOST_ENDS.contains(&last.to_ascii_lowercase().as_str());
    let is_name = labels.len() >= 3
        && run == lower
        && last.len() >= 2
        && last.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !FILE_ENDS.contains(&last);
    let is_host = labels.len() >= 2 && labels.iter().all(is_label);
    (is_host && !is_public && (is_known_end || is_name)).then(|| sure(Kind::Host, run.len()))?
}

/// One digit repeated, such as `00:00:00:00:00:00` or `ffff…`, which identifies nothing.
fn is_one_digit(text: &str) -> bool {
    let mut digits = text.bytes().filter(u8::is_ascii_hexdigit);
    let first = digits.next();
    digits.all(|digit| Some(digit) == first)
}

/// Whether the bits are ones followed by zeros.
fn is_mask(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    bits.leading_ones() + bits.trailing_zeros() >= 32 && bits.leading_ones() >= 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_somebody_is_found_by_its_form_and_plain_words_are_not() {
        use Kind::{Email, Hex, Host, Ipv4, Ipv6, Mac, Serial, Url, Uuid};
        for (text, expected) in [
            ("D0:8E:79:00:00:01", Some(Mac)),
            ("d0-8e-79-00-00-01", Some(Mac)),
            ("d08e.7900.0001", Some(Mac)),
            ("D08E79000001", Some(Mac)),
            ("123456789012", None),
            ("00:00:00:00:00:00", None),
            ("12:30:45", None),
            ("4c4c4544-0042-4310-8031-c1c04f333231", Some(Uuid)),
            ("4C4C4544004243108031C1C04F333231", Some(Uuid)),
            ("50:00:c5:00:a1:b2:c3:d4", Some(Hex)),
            ("5000c500a1b2c3d4", Some(Hex)),
            ("10.20.30.40", Some(Ipv4)),
            ("255.255.254.0", None),
            ("127.0.0.1", None),
            ("6.10.30.20.5", None),
            ("fe80::d28e:79ff:fe00:1", Some(Ipv6)),
            ("fe80::1%eth0", Some(Ipv6)),
            ("2001:4860:0:0:0:0:0:8888", Some(Ipv6)),
            ("::1", None),
            ("db7.corp.internal", Some(Host)),
            ("DB7.local", Some(Host)),
            ("redfish.dmtf.org", None),
            ("iDRAC.Embedded.1", None),
            ("#ComputerSystem.v1_20_0.ComputerSystem", None),
            ("rescue.iso", None),
            ("ops@corp.internal", Some(Email)),
            ("root@oak", Some(Email)),
            ("Status@odata.type", None),
            ("iqn.2015-02.com.hpe:uefi-ABC", Some(Serial)),
            ("https://oak/iso/x.iso?t=1", Some(Url)),
            ("//files/share/x.iso", Some(Url)),
            ("nfs://10.0.0.1/x", Some(Url)),
            ("https://[fe80::1]:8443/x.iso", Some(Url)),
            ("https://root:calvin@10.0.0.1", Some(Url)),
            ("https://redfish.dmtf.org/schemas/v1/Chassis.json", None),
            ("/redfish/v1/Systems", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
        for (text, start, kind) in [
            ("NIC-D0:8E:79:00:00:01", 4, Mac),
            ("MAC_d08e79000001.", 4, Mac),
            ("idrac-10.20.30.40:443", 6, Ipv4),
            ("[fe80::1]:443", 1, Ipv6),
            ("0x5000c500a1b2c3d4", 2, Hex),
        ] {
            assert_eq!(at(text, start).map(|found| found.kind), Some(kind), "{text}");
        }
    }

    #[test]
    fn what_is_in_base64_is_hidden_and_words_are_not() {
        let encoded = base64::engine::general_purpose::STANDARD.encode("serial ABC1234");
        let text = format!("note: {encoded}, end");
        assert_eq!(without_blobs(&text, "***"), "note: ***, end");
        let pem = "key -----BEGIN PRIVATE KEY-----\nMIIB";
        assert_eq!(without_blobs(pem, "***"), "key ***");
        for word in [
            "BootSourceOverrideTarget",
            "InvalidCredentialsForAction",
            "UnableToModifyDuringSystemPOST",
            "/redfish/v1/Systems/System.Embedded.1/VirtualMedia/1",
            "00000000-0000-4000-8000-000000000001",
        ] {
            assert_eq!(without_blobs(word, "***"), word);
        }
        assert!(is_serial("CNEXAMPLE00001") && is_serial("437XR1138R2"));
        assert!(!is_serial("EXT1") && !is_serial("Remote12") && !is_serial("UEFIHTTP"));
    }
}
