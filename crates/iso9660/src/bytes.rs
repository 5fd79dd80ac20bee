// SPDX-License-Identifier: AGPL-3.0-or-later
//! Encoding of numbers, dates and padded text by ECMA-119.

/// Bytes of a logical block, which is also a sector.
pub const SECTOR: usize = 2048;

/// A 16-bit number, both byte orders (7.2.3).
pub fn both16(value: u16) -> [u8; 4] {
    let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
    [little[0], little[1], big[0], big[1]]
}

/// A 32-bit number, both byte orders (7.3.3).
pub fn both32(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// Text padded with spaces to `N` bytes.
pub fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b' '; N];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// Text as UCS-2 big endian, padded with spaces to `N` bytes (Joliet).
pub fn padded_ucs2<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut units: Vec<u16> = text.encode_utf16().take(N / 2).collect();
    units.resize(N / 2, u16::from(b' '));
    for (pair, unit) in bytes.chunks_exact_mut(2).zip(units) {
        pair.copy_from_slice(&unit.to_be_bytes());
    }
    bytes
}

/// Year, month, day, hour, minute, second (UTC).
pub struct Date([u32; 6]);

impl Date {
    /// From seconds since 1970, by the civil calendar (Howard Hinnant's `civil_from_days`).
    pub fn from_epoch(secs: u64) -> Date {
        let (days, rest) = (secs / 86400, (secs % 86400) as u32);
        let days = days as i64 + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_index = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
        let month = (if month_index < 10 { month_index + 3 } else { month_index - 9 }) as u32;
        let year = (year_of_era + era * 400 + i64::from(month <= 2)) as u32;
        Date([year, month, day, rest / 3600, rest / 60 % 60, rest % 60])
    }

    /// The form in a directory record (9.1.5), where years end in 2155.
    pub fn short(&self) -> [u8; 7] {
        let [year, month, day, hour, minute, second] = self.0;
        let year = year.saturating_sub(1900).min(255);
        [year as u8, month as u8, day as u8, hour as u8, minute as u8, second as u8, 0]
    }

    /// The form in a volume descriptor (8.4.26.1).
    pub fn long(&self) -> [u8; 17] {
        let [year, month, day, hour, minute, second] = self.0;
        let year = year.min(9999);
        let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00");
        let mut bytes = [0; 17];
        bytes[..16].copy_from_slice(text.as_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        for (secs, text) in [
            (0, "1970010100000000"),
            (951_782_399, "2000022823595900"),
            (951_782_400, "2000022900000000"),
            (1_735_689_599, "2024123123595900"),
            (4_107_542_400, "2100030100000000"),
        ] {
            let long = Date::from_epoch(secs).long();
            assert_eq!(std::str::from_utf8(&long[..16]).unwrap(), text, "{secs}");
        }
        assert_eq!(Date::from_epoch(951_782_399).short(), [100, 2, 28, 23, 59, 59, 0]);
    }
}
