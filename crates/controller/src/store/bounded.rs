// SPDX-License-Identifier: AGPL-3.0-or-later
//! Texts of others, as long as they are stored.

/// At most `max` bytes, cut at a character.
pub fn bounded(mut text: String, max: usize) -> String {
    text.truncate(text.floor_char_boundary(max));
    text
}
