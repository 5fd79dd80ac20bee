// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks of a recipe's bytes before any field is interpreted: size, byte order mark, duplicate keys, and text that is
//! not JSON at all.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// Largest recipe: the three payloads of a Linux recipe at their limits, and room for JSON escapes.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// The mark that some editors write before UTF-8 text (Unicode, section 2.6). RFC 8259, section 8.1, lets a reader
/// ignore it.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Most keys in one object. Our own objects have about a dozen, maps of a recipe 64. More would only cost memory.
const KEYS_MAX: usize = 4096;
/// Most characters of a key that an error message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// Removes a byte order mark from the beginning.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// How to turn text that is not JSON into JSON, if its format can be recognised.
pub fn cure(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Some("this is UTF-16; save it as UTF-8");
    }
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_comment = |line: &str| line.starts_with(['#', '/']);
    let first = lines.clone().find(|line| !is_comment(line));
    let is_yaml = first.is_some_and(|line| {
        let is_json = line.starts_with(['{', '[', '"']);
        let is_field = line.split_once(':').is_some_and(|(name, _)| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        });
        !is_json
            && (is_field
                || line.starts_with("---")
                || line.starts_with("- ")
                || line.starts_with('%'))
    });
    if is_yaml {
        return Some(
            "this looks like YAML; `shoal job create` takes YAML, the API takes JSON only",
        );
    }
    lines
        .any(is_comment)
        .then_some("JSON has no comments; leave them out, or write the recipe as YAML")
}

/// Rejects an object with a duplicate key: parsers differ in which of the two values they use (RFC 8259, section 4).
pub fn check_keys(bytes: &[u8]) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    UniqueKeys.deserialize(&mut reader)?;
    reader.end()
}

/// Reads a value and discards it.
#[derive(Clone, Copy)]
struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                let shown: String = key.chars().take(SHOWN_CHARS_MAX).collect();
                return Err(A::Error::custom(format_args!("{shown:?} is written twice")));
            }
            if keys.len() == KEYS_MAX {
                return Err(A::Error::custom(format_args!(
                    "an object has more than {KEYS_MAX} keys"
                )));
            }
            keys.insert(key);
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_told_with_the_way_out() {
        for (text, expected) in [
            ("task_target: install-linux.target\n", "looks like YAML"),
            ("# mine\n---\ntask_target: x\n", "looks like YAML"),
            ("- a\n", "looks like YAML"),
            ("// mine\n{\"a\": 1}", "no comments"),
            ("{\n  # mine\n  \"a\": 1}", "no comments"),
            ("{\"a\": 1,}", ""),
            ("12:30", "looks like YAML"),
            ("", ""),
            ("<html>", ""),
        ] {
            let cure = cure(text.as_bytes());
            assert_eq!(cure.is_some(), !expected.is_empty(), "{text:?}: {cure:?}");
            assert!(cure.unwrap_or_default().contains(expected), "{text:?}: {cure:?}");
        }
        assert_eq!(cure(b"\xff\xfe{\0"), Some("this is UTF-16; save it as UTF-8"));
    }

    #[test]
    fn a_key_that_is_written_twice_is_refused_with_its_place() {
        for json in
            [r#"{"a":1,"b":{"a":2}}"#, r#"[{"a":1},{"a":1}]"#, "null", "-1.5e3", r#""\u00e9""#]
        {
            check_keys(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
        }
        for json in [r#"{"a":1,"a":1}"#, r#"{"b":[{"a":1,"\u0061":2}]}"#] {
            let error = check_keys(json.as_bytes()).unwrap_err().to_string();
            assert!(
                error.starts_with("\"a\" is written twice at line 1 column "),
                "{json}: {error}"
            );
        }
        assert!(check_keys(b"{} {}").is_err());
        let many = |count| {
            let keys: Vec<String> = (0..count).map(|key| format!("\"{key}\":0")).collect();
            check_keys(format!("{{{}}}", keys.join(",")).as_bytes())
        };
        assert!(many(KEYS_MAX).is_ok());
        assert!(many(KEYS_MAX + 1).is_err());
    }
}
