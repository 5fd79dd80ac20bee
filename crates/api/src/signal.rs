// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a machine tells that cannot speak: it reads a place in the medium that it booted from, and the
//! controller, which serves that medium, sees which one. No network and no agent of the BMC is needed.
//!
//! The places are bytes of one file of zeros, [`FILE`]:
//!
//! ```text
//! 0            LEAD_BYTES                                          FILE_BYTES
//! │ nobody reads │ place 15 │ place 14 │ … │ place 1 │ place 0 │ nobody reads │
//! ```
//!
//! A BMC reads ahead, so that what was asked for before hides what lies behind it. Therefore nothing is
//! told at the file's begin, and what a machine finds out later is told further in front. Others read whole
//! blocks: what lies behind the file (the task) must not be in a block that begins in a place.

/// Where the places are, in the maintenance medium.
pub const FILE: &str = "shoal/signals";
/// Longer than what is read ahead of the file before this one.
const LEAD_BYTES: u64 = 2 << 20;
/// What is asked for lies in the middle of it: some BMCs read whole blocks of 64 KiB.
const PLACE_BYTES: u64 = 128 << 10;
const PLACES: u64 = 16;
/// Blocks of this size begin in the place that they are read for.
pub const BLOCK_BYTES_MAX: u64 = PLACE_BYTES / 2;
/// The largest blocks in which a BMC was seen to read.
const TRAIL_BYTES: u64 = 1 << 20;
/// How long the file is.
pub const FILE_BYTES: u64 = LEAD_BYTES + PLACES * PLACE_BYTES + TRAIL_BYTES;

/// Why a maintenance OS that runs is not heard. Their order is that in which a machine finds out; after
/// what is last there is nothing more (see `is_last`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    NoTaskMedium,
    TaskMediumUnreadable,
    NoInterface,
    NoLink,
    NoAddress,
    NoRoute,
    UnknownName,
    NoAnswer,
    ConnectionRefused,
    CertificateRefused,
    OtherAnswer,
    TaskMediumForeign,
}

impl Signal {
    pub const ALL: [Signal; 12] = [
        Signal::NoTaskMedium,
        Signal::TaskMediumUnreadable,
        Signal::NoInterface,
        Signal::NoLink,
        Signal::NoAddress,
        Signal::NoRoute,
        Signal::UnknownName,
        Signal::NoAnswer,
        Signal::ConnectionRefused,
        Signal::CertificateRefused,
        Signal::OtherAnswer,
        Signal::TaskMediumForeign,
    ];

    /// Its number is its place; media and controllers of several versions agree on it.
    fn number(self) -> u64 {
        match self {
            Signal::NoTaskMedium => 0,
            Signal::TaskMediumUnreadable => 1,
            Signal::NoInterface => 2,
            Signal::NoLink => 3,
            Signal::NoAddress => 4,
            Signal::NoRoute => 5,
            Signal::UnknownName => 6,
            Signal::NoAnswer => 7,
            Signal::ConnectionRefused => 8,
            Signal::CertificateRefused => 9,
            Signal::OtherAnswer => 10,
            Signal::TaskMediumForeign => 11,
        }
    }

    /// Which byte of the file is read to tell it.
    pub fn offset(self) -> u64 {
        LEAD_BYTES + (PLACES - 1 - self.number()) * PLACE_BYTES + PLACE_BYTES / 2
    }

    /// What a read tells that begins at this byte of the file.
    pub fn at(offset: u64) -> Option<Signal> {
        let place = offset.checked_sub(LEAD_BYTES)? / PLACE_BYTES;
        let number = (PLACES - 1).checked_sub(place)?;
        Signal::ALL.into_iter().find(|signal| signal.number() == number)
    }

    /// Whether the machine tries no more after it.
    pub fn is_last(self) -> bool {
        matches!(
            self,
            Signal::NoTaskMedium | Signal::TaskMediumUnreadable | Signal::TaskMediumForeign
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_tells_one_thing_and_a_read_ahead_hides_nothing_that_comes_later() {
        for (signal, later) in Signal::ALL.iter().zip(&Signal::ALL[1..]) {
            assert!(later.offset() < signal.offset(), "{later:?}");
        }
        for signal in Signal::ALL {
            assert_eq!(Signal::at(signal.offset()), Some(signal));
            let block = signal.offset() / 65536 * 65536;
            assert_eq!(Signal::at(block), Some(signal), "blocks of 64 KiB");
            assert!(signal.offset() + 2048 <= FILE_BYTES);
        }
        for nothing in
            [0, LEAD_BYTES - 1, LEAD_BYTES, FILE_BYTES - TRAIL_BYTES, FILE_BYTES, u64::MAX]
        {
            assert_eq!(Signal::at(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_place_never_gets_another_meaning() {
        let last = (4 << 20) - 65536;
        assert_eq!(Signal::NoTaskMedium.offset(), last);
        assert_eq!(Signal::NoLink.offset(), last - 3 * 131_072);
        assert_eq!(Signal::OtherAnswer.offset(), last - 10 * 131_072);
        assert_eq!(Signal::TaskMediumForeign.offset(), last - 11 * 131_072);
    }
}
