// SPDX-License-Identifier: AGPL-3.0-or-later
//! Copies a manifest's annotations from its bytes without building a map: 4 MiB may contain hundreds of thousands of
//! annotations, and each would take a hundred bytes as a map entry.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Appends a manifest's annotations as a JSON object; appends nothing if there are none.
pub fn copy_annotations(manifest: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let mut document = serde_json::Deserializer::from_slice(manifest);
    Document(out).deserialize(&mut document)?;
    document.end()
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Document<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = fields.next_key()? {
            if name == "annotations" {
                fields.next_value_seed(Annotations(&mut *self.0))?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Annotations<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Annotations<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Annotations<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("annotations")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut annotations: A) -> Result<(), A::Error> {
        let out = self.0;
        let start = out.len();
        while let Some((Text(name), value)) = annotations.next_entry::<Text, Option<Text>>()? {
            // Go programs write values that were never set as `null`.
            let Some(Text(value)) = value else { continue };
            out.push(if out.len() == start { b'{' } else { b',' });
            write_text(out, &name);
            out.push(b':');
            write_text(out, &value);
        }
        if out.len() > start {
            out.push(b'}');
        }
        Ok(())
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is JSON, and memory takes it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_copied_as_they_are_and_nothing_else_is() {
        for (manifest, expected) in [
            (r#"{"annotations":{"a":"b"}}"#, r#"{"a":"b"}"#),
            (r#"{"layers":[{"annotations":{"x":"y"}}],"annotations":{}}"#, ""),
            (r#"{"schemaVersion":2}"#, ""),
            (r#"{"annotations":null,"layers":null}"#, ""),
            (r#"{"annotations":{"a":null,"b":"c","d":null}}"#, r#"{"b":"c"}"#),
            (r#"{"annotations":{"a":null}}"#, ""),
            (
                r#"{ "annotations" : { "é\"\n" : "\u00fc\u0001" } , "z" : 1 }"#,
                "{\"é\\\"\\n\":\"ü\\u0001\"}",
            ),
        ] {
            let mut out = Vec::new();
            copy_annotations(manifest.as_bytes(), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{manifest}");
        }
        for bad in ["", "[]", r#"{"annotations":[]}"#, r#"{"annotations":{"a":1}}"#, "{}x"] {
            assert!(copy_annotations(bad.as_bytes(), &mut Vec::new()).is_err(), "{bad}");
        }
    }
}
