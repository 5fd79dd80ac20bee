// SPDX-License-Identifier: AGPL-3.0-or-later
//! A range of bytes on a disk or in a partition.

/// A range in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub start: u64,
    pub bytes: u64,
}

impl Range {
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.bytes)
    }
}
