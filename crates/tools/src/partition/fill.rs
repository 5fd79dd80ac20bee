// SPDX-License-Identifier: AGPL-3.0-or-later
//! Detects data where no signature is recognised. Pure: which places are sampled, and what counts as blank.
//!
//! A range is blank if its bytes are all 0x00, or all 0xff: flash that was never written or was discarded reads
//! as either. Anything else, including a mixture of both, is data.

use super::range::Range;

/// Number of samples over all ranges together. A hard disk needs about 8 ms for each, so they take about 16 s. Data
/// that fills 1/2048 of the space in one piece is always hit.
const SAMPLES: u64 = 2048;
pub const SAMPLE_BYTES: usize = 4096;

/// What has been read of a range so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fill {
    #[default]
    NotSeen,
    Erased(u8),
    /// The offset of the first byte that differs from erased flash.
    Data(u64),
}

impl Fill {
    pub fn add(&mut self, at: u64, bytes: &[u8]) {
        let erased = match (*self, bytes.first()) {
            (Fill::Data(_), _) | (_, None) => return,
            (Fill::Erased(byte), _) => byte,
            (Fill::NotSeen, Some(0xff)) => 0xff,
            (Fill::NotSeen, Some(_)) => 0,
        };
        *self = match bytes.iter().position(|byte| *byte != erased) {
            None => Fill::Erased(erased),
            Some(position) => Fill::Data(at + position as u64),
        };
    }

    pub fn data_at(self) -> Option<u64> {
        match self {
            Fill::Data(at) => Some(at),
            Fill::NotSeen | Fill::Erased(_) => None,
        }
    }
}

/// The parts of `whole` that are in none of `taken`.
pub fn gaps(whole: Range, taken: &[Range]) -> Vec<Range> {
    let mut taken = taken.to_vec();
    taken.sort();
    let mut gaps = Vec::new();
    let mut at = whole.start;
    for range in taken {
        let end = range.start.min(whole.end());
        if end > at {
            gaps.push(Range { start: at, bytes: end - at });
        }
        at = at.max(range.end());
    }
    if whole.end() > at {
        gaps.push(Range { start: at, bytes: whole.end() - at });
    }
    gaps
}

/// The places to sample: for each the index of its range and its offset, evenly spread, in whole samples.
pub fn samples(stretches: &[Range]) -> Vec<(usize, u64)> {
    let total: u64 = stretches.iter().map(|stretch| stretch.bytes).sum();
    let sample_bytes = SAMPLE_BYTES as u64;
    let step = (total / SAMPLES).max(sample_bytes);
    let mut places = Vec::new();
    for (number, stretch) in stretches.iter().enumerate() {
        let first = stretch.start.next_multiple_of(sample_bytes);
        let mut at = first;
        while at.saturating_add(sample_bytes) <= stretch.end() {
            places.push((number, at - at % sample_bytes));
            at += step;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_all_zeros_or_all_ones() {
        for (pieces, expected) in [
            (&[&[0u8, 0][..], &[0]][..], Fill::Erased(0)),
            (&[&[0xff, 0xff], &[0xff]], Fill::Erased(0xff)),
            (&[&[0, 0], &[0, 0xff]], Fill::Data(101)),
            (&[&[0xff, 0]], Fill::Data(1)),
            (&[&[7]], Fill::Data(0)),
            (&[&[0, 0], &[1], &[2]], Fill::Data(100)),
            (&[&[]], Fill::NotSeen),
            (&[&[0], &[]], Fill::Erased(0)),
        ] {
            let mut fill = Fill::default();
            for (at, bytes) in (0..).step_by(100).zip(pieces) {
                fill.add(at, bytes);
            }
            assert_eq!(fill, expected, "{pieces:?}");
        }
    }

    #[test]
    fn gaps_are_what_no_range_covers() {
        let range = |(start, end): (u64, u64)| Range { start, bytes: end - start };
        for (taken, expected) in [
            (vec![], vec![(10, 100)]),
            (vec![(10, 100)], vec![]),
            (vec![(0, 200)], vec![]),
            (vec![(50, 60), (20, 30)], vec![(10, 20), (30, 50), (60, 100)]),
            (vec![(20, 90), (30, 40)], vec![(10, 20), (90, 100)]),
            (vec![(99, 300)], vec![(10, 99)]),
            (vec![(0, 11), (200, 300)], vec![(11, 100)]),
        ] {
            let taken: Vec<Range> = taken.into_iter().map(range).collect();
            let expected: Vec<Range> = expected.into_iter().map(range).collect();
            assert_eq!(gaps(range((10, 100)), &taken), expected, "{taken:?}");
        }
    }

    #[test]
    fn samples_are_spread_over_every_stretch_and_bounded() {
        let tib = Range { start: 1 << 20, bytes: 1 << 40 };
        let other = Range { start: 4 << 40, bytes: 1 << 39 };
        let places = samples(&[tib, other]);
        assert!((2000..=2050).contains(&places.len()), "{}", places.len());
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(places[0], (0, 1 << 20));
        let last = places.last().unwrap();
        assert!(last.0 == 1 && last.1 > other.end() - (1 << 30) && last.1 < other.end());
        // Small ranges are read completely, and nothing beyond them.
        let small = Range { start: 4096, bytes: 3 * 4096 };
        assert_eq!(samples(&[small]), [(0, 4096), (0, 8192), (0, 12288)]);
        assert_eq!(samples(&[Range { start: 1, bytes: 8191 }]), [(0, 4096)]);
        assert_eq!(samples(&[Range { start: 1, bytes: 4096 }]), []);
        assert_eq!(samples(&[]), []);
    }
}
