// SPDX-License-Identifier: AGPL-3.0-or-later
//! Length limit for stored texts that come from outside.

/// Cuts a text to at most `max` bytes, at a character boundary.
pub fn bounded(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}
