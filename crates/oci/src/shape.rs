// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads the names of a JSON document's top-level fields without keeping the values: a document of a few megabytes
//! may have millions of values, and each costs thirty bytes and an allocation as a `serde_json::Value`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most fields of a document. Manifests have eight; the rest is for extensions.
const FIELDS_MAX: usize = 256;

/// Whether a field is `null` or has a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Null,
    Value,
}

/// The fields of a document in order, including duplicates. A document that is not an object is an error.
pub fn top_level(bytes: &[u8]) -> Result<Vec<(String, Seen)>, serde_json::Error> {
    serde_json::from_slice::<Fields>(bytes).map(|fields| fields.0)
}

struct Fields(Vec<(String, Seen)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct OfObject;

        impl<'de> Visitor<'de> for OfObject {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    if fields.len() == FIELDS_MAX {
                        let message = format!("it has more than {FIELDS_MAX} fields");
                        return Err(A::Error::custom(message));
                    }
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(OfObject)
    }
}

impl<'de> Deserialize<'de> for Seen {
    /// Uses `deserialize_any`, for which `serde_json` limits the depth to 128. `IgnoredAny` has no such limit.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seen, D::Error> {
        deserializer.deserialize_any(OfAny)
    }
}

struct OfAny;

impl<'de> Visitor<'de> for OfAny {
    type Value = Seen;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Seen, E> {
        Ok(Seen::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Seen, E> {
        Ok(Seen::Value)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Seen, E> {
        Ok(Seen::Value)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Seen, E> {
        Ok(Seen::Value)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Seen, E> {
        Ok(Seen::Value)
    }

    fn visit_str<E>(self, _: &str) -> Result<Seen, E> {
        Ok(Seen::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seen, A::Error> {
        while list.next_element::<Seen>()?.is_some() {}
        Ok(Seen::Value)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        while map.next_entry::<IgnoredAny, Seen>()?.is_some() {}
        Ok(Seen::Value)
    }
}
