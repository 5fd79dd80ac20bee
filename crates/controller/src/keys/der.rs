// SPDX-License-Identifier: AGPL-3.0-or-later
//! Certificate fields that webpki does not expose: the validity period, and the IP addresses (RFC 5280, sections
//! 4.1.2.5 and 4.2.1.6). Reads only certificates that webpki has already parsed. Pure.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT Version` and `[3] EXPLICIT Extensions`.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `iPAddress [7]` of a GeneralName.
const IP_ADDRESS: u8 = 0x87;
/// id-ce-subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

#[derive(Debug, PartialEq, Eq)]
pub struct Fields {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub addresses: Vec<IpAddr>,
}

/// Returns `None` if the bytes are not a certificate.
pub fn fields(certificate: &[u8]) -> Option<Fields> {
    let mut outer = Reader(Reader(certificate).expect(SEQUENCE)?);
    let mut tbs = Reader(outer.expect(SEQUENCE)?);
    if tbs.0.first() == Some(&VERSION) {
        tbs.next()?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        tbs.next()?;
    }
    let mut validity = Reader(tbs.expect(SEQUENCE)?);
    let not_before = time(validity.next()?)?;
    let not_after = time(validity.next()?)?;
    let mut addresses = Vec::new();
    while let Some((tag, value)) = tbs.next() {
        if tag == EXTENSIONS {
            let mut extensions = Reader(Reader(value).expect(SEQUENCE)?);
            while let Some((_, extension)) = extensions.next() {
                addresses.extend(addresses_of(extension).unwrap_or_default());
            }
        }
    }
    Some(Fields { not_before, not_after, addresses })
}

/// Returns the addresses of an extension, if it is subjectAltName.
fn addresses_of(extension: &[u8]) -> Option<Vec<IpAddr>> {
    let mut extension = Reader(extension);
    if extension.expect(OBJECT_IDENTIFIER)? != SUBJECT_ALT_NAME {
        return None;
    }
    // `critical` may precede it.
    let value = loop {
        if let (OCTET_STRING, value) = extension.next()? {
            break value;
        }
    };
    let mut names = Reader(Reader(value).expect(SEQUENCE)?);
    let mut addresses = Vec::new();
    while let Some((tag, name)) = names.next() {
        if tag == IP_ADDRESS {
            let v4 = <[u8; 4]>::try_from(name).map(IpAddr::from);
            addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(name).map(IpAddr::from)));
        }
    }
    Some(addresses)
}

/// A time to the second, in UTC. Years of the short form are 1950 to 2049.
fn time((tag, text): (u8, &[u8])) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match (tag, text.get(..2)?) {
        (UTC_TIME, year) if year >= "50" => format!("19{text}"),
        (UTC_TIME, _) => format!("20{text}"),
        (GENERALIZED_TIME, _) => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Reads tags and values, one after the other (X.690, sections 8.1 and 10.1).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, short], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match short {
            ..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_addresses_are_those_that_were_written() {
        for (before, after) in [((1999, 12, 31), (2026, 2, 28)), ((2026, 1, 1), (2050, 1, 1))] {
            let names = ["192.0.2.7", "a.example", "2001:db8::7"].map(str::to_owned);
            let mut params = rcgen::CertificateParams::new(names.to_vec()).unwrap();
            params.not_before = rcgen::date_time_ymd(before.0, before.1, before.2);
            params.not_after = rcgen::date_time_ymd(after.0, after.1, after.2);
            let key = rcgen::KeyPair::generate().unwrap();
            let made = params.self_signed(&key).unwrap();
            let read = fields(made.der()).unwrap();
            let day =
                |(year, month, day): (i32, u8, u8)| format!("{year}-{month:02}-{day:02}T00:00:00Z");
            assert_eq!(read.not_before.to_string(), day(before));
            assert_eq!(read.not_after.to_string(), day(after));
            let addresses: [IpAddr; 2] =
                ["192.0.2.7", "2001:db8::7"].map(|text| text.parse().unwrap());
            assert_eq!(read.addresses, addresses);
            // Cut off at any byte, it is refused or read without a panic.
            for end in 0..made.der().len() {
                let _ = fields(&made.der()[..end]);
            }
        }
        assert_eq!(fields(b""), None);
        assert_eq!(fields(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
