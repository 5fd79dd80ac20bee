// SPDX-License-Identifier: AGPL-3.0-or-later
//! Text of machines, BMCs and clients on a terminal or in a log, where it must move no cursor, change no colour,
//! hide nothing and look like nothing else.

use std::borrow::Cow;
use std::fmt::Write;

/// The text on one line, each letter that a terminal would take as a command, or that nobody sees, replaced by a
/// letter that is seen. White space becomes a space, so that columns and lines stay what they are.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return text.into();
    }
    let shown = |letter: char| match letter {
        _ if !is_unsafe(letter) => letter,
        '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(shown).collect::<String>().into()
}

/// JSON that means the same, with such letters as `\u` escapes (RFC 8259, section 7): outside of strings there are
/// none but the line breaks of its layout, which stay.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    let is_escaped = |letter: char| letter != '\n' && is_unsafe(letter);
    if !json.contains(is_escaped) {
        return json.into();
    }
    let (mut escaped, mut units) = (String::with_capacity(json.len() + 64), [0; 2]);
    for letter in json.chars() {
        if !is_escaped(letter) {
            escaped.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut units) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped.into()
}

/// Controls (C0, DEL, C1), separators of lines, what turns the direction of writing (Unicode Technical Report 36,
/// section 2.1), and what takes no room: joiners, fillers, tags, marks of byte order.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_and_nothing_unseen_is_left() {
        for (text, expected) in [
            ("plain, with é and 漢字", "plain, with é and 漢字"),
            ("\x1b[2Jgone", "\u{fffd}[2Jgone"),
            ("\x1b]8;;https://evil\x07link\x1b]8;;\x07", "�]8;;https://evil�link�]8;;�"),
            ("\u{9b}31mred", "�31mred"),
            ("\u{90}q\u{9c}", "�q�"),
            ("ok\rFAILED", "ok FAILED"),
            ("a\nb\tc", "a b c"),
            ("back\x08\x08\x7f", "back���"),
            ("\x07\0", "��"),
            ("user\u{202e}txt.exe", "user�txt.exe"),
            ("\u{2066}a\u{2069}\u{200f}\u{61c}", "�a���"),
            ("ad\u{200b}min\u{feff}\u{ad}\u{2060}", "ad�min���"),
            ("line\u{2028}para\u{2029}next\u{85}", "line para next "),
            ("tag\u{e0041}\u{3164}", "tag��"),
        ] {
            assert_eq!(printable(text), expected, "{text:?}");
            assert_eq!(printable(&printable(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn escaped_json_is_the_same_json() {
        let text: String =
            ('\0'..='\u{ffff}').chain('\u{1d170}'..='\u{1d180}').chain(['\u{e0041}']).collect();
        let value = serde_json::json!({"a\u{202e}": [text], "b": {"\u{7f}": "\u{9b}"}});
        for json in [value.to_string(), format!("{value:#}")] {
            let escaped = escaped_json(&json);
            assert!(!escaped.chars().any(|letter| letter != '\n' && is_unsafe(letter)));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
        }
        assert_eq!(escaped_json("{\"a\":\"\u{202e}\u{e0041}\"}"), r#"{"a":"\u202e\udb40\udc41"}"#);
    }
}
