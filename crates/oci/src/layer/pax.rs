// SPDX-License-Identifier: AGPL-3.0-or-later
//! Extended headers of POSIX.1-2001 archives (pax(1)): `LENGTH KEY=VALUE\n` records. A value may contain any bytes,
//! including line breaks.

use super::error::TarError;

/// Records in order. A later record wins over an earlier one with the same key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pax(Vec<(Vec<u8>, Vec<u8>)>);

impl Pax {
    pub fn parse(mut bytes: &[u8]) -> Result<Pax, TarError> {
        let malformed = || TarError::Malformed("an extended header's record");
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let space =
                bytes.iter().take(20).position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = decimal(&bytes[..space]).ok_or_else(malformed)?;
            let length = usize::try_from(length).map_err(|_| malformed())?;
            let record = bytes.get(space + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Ok(Pax(records))
    }

    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    pub fn number(&self, key: &'static str) -> Result<Option<u64>, TarError> {
        self.get(key).map(|text| decimal(text).ok_or(TarError::Malformed(key))).transpose()
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// Seconds since 1970 with a fraction, such as `1700000000.123456789` or `-1.5`.
    pub fn time(&self, key: &'static str) -> Result<Option<(i64, u32)>, TarError> {
        self.get(key).map(|text| time(text).ok_or(TarError::Malformed(key))).transpose()
    }
}

/// Parses a number that consists of digits only.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanos = 0;
    if let Some(fraction) = parts.next().filter(|fraction| !fraction.is_empty()) {
        let mut digits = fraction.to_vec();
        digits.resize(9, b'0');
        decimal(fraction)?;
        nanos = u32::try_from(decimal(&digits)?).ok()?;
    }
    match (is_negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_line_breaks_and_zero_bytes() {
        let bytes = b"12 path=a/b\n33 SCHILY.xattr.user.x=\n\0\n a=b\n\n\n15 mtime=-1.25\n";
        let pax = Pax::parse(bytes).unwrap();
        assert_eq!(pax.get("path"), Some(b"a/b".as_slice()));
        assert_eq!(pax.get("SCHILY.xattr.user.x"), Some(b"\n\0\n a=b\n\n".as_slice()));
        assert_eq!(pax.time("mtime").unwrap(), Some((-2, 750_000_000)));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            b"12 path=a/b".as_slice(),
            b"13 path=a/b\n",
            b"11 path=a/b\n",
            b"99999999999999999999999 a=b\n",
            b"0 a=b\n",
            b"2 \n",
            b"x path=a\n",
            b"+6 a=b\n",
            b"5 ab\n",
        ] {
            assert!(Pax::parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
