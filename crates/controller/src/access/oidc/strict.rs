// SPDX-License-Identifier: AGPL-3.0-or-later
//! Strict parsing of the parts of a token, rejecting text that two parsers could read differently. Pure.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Members of a header that change how the token has to be read (RFC 7515, sections 4.1.10 and 4.1.11; RFC 7516,
/// section 4.1; RFC 7797, section 3). Only one way of reading is supported.
const CHANGING: [&str; 5] = ["crit", "b64", "zip", "enc", "cty"];

/// The members of a JSON object.
type Members = Map<String, Value>;

/// Returns the header and the claims of a token, the first two of its three parts.
pub fn parts(token: &str) -> Result<(Members, Members), String> {
    let mut parts = token.split('.');
    let (Some(header), Some(claims)) = (parts.next(), parts.next()) else {
        return Err("it has not three parts".into());
    };
    Ok((object("header", header)?, object("claims", claims)?))
}

/// Refuses a header that requires an unsupported way of reading the token.
pub fn check_header(header: &Members) -> Result<(), String> {
    match CHANGING.iter().find(|name| header.contains_key(**name)) {
        Some(name) => Err(format!("its header has {name:?}, which is not understood")),
        None => Ok(()),
    }
}

fn object(what: &str, part: &str) -> Result<Members, String> {
    let wrong = |why: String| format!("its {what} cannot be read: {why}");
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|error| wrong(error.to_string()))?;
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    let value = Once.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value.map_err(|error| wrong(error.to_string()))? {
        Value::Object(members) => Ok(members),
        _ => Err(wrong("it is no object".into())),
    }
}

/// A value in which no member occurs twice (RFC 7519, section 4).
struct Once;

impl<'de> DeserializeSeed<'de> for Once {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Once)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = items.next_key::<String>()? {
            let value = items.next_value_seed(Once)?;
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("{name:?} comes twice")));
            }
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}
