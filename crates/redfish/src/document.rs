// SPDX-License-Identifier: AGPL-3.0-or-later
//! Parsing of a response's JSON. Its depth and its number of values are limited before parsing, because a BMC is not
//! trusted.

use serde_json::Value;

/// Deepest nesting. Redfish resources have about twelve levels.
const DEPTH_MAX: usize = 64;
/// Most members and elements of one response together. A system of a large server has a few thousand.
const VALUES_MAX: usize = 100_000;

/// Why a body cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// Deeper or larger than any real resource.
    Bomb(String),
    NotJson(String),
}

/// Removes what some BMCs put around a body: a byte order mark, white space, the NUL of a C string.
pub(crate) fn trimmed(bytes: &[u8]) -> &[u8] {
    let is_padding = |byte: &u8| *byte == 0 || byte.is_ascii_whitespace();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let start = bytes.iter().position(|byte| !is_padding(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_padding(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// The strings in an array.
pub(crate) fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Parses a document. Bytes that are not UTF-8 become U+FFFD: a user's text in another encoding must not make the
/// whole resource unreadable (DMTF/libredfish#108).
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Unusable> {
    let json = trimmed(bytes);
    let (depth, values) = measure(json);
    if depth > DEPTH_MAX {
        let why = format!("the answer nests deeper than {DEPTH_MAX} levels");
        return Err(Unusable::Bomb(why));
    }
    if values > VALUES_MAX {
        return Err(Unusable::Bomb(format!("the answer has more than {VALUES_MAX} values")));
    }
    // The measured limits still hold: a byte of an invalid sequence is never a bracket, a comma or a quote.
    serde_json::from_str(&String::from_utf8_lossy(json))
        .map_err(|error| Unusable::NotJson(format!("the answer is not JSON: {error}")))
}

/// The depth and an upper bound of the number of values, counted by brackets and commas outside of strings. Only the
/// bytes are scanned, so a hostile document is never built in memory.
fn measure(json: &[u8]) -> (usize, usize) {
    let (mut depth, mut deepest, mut values) = (0usize, 0, 1);
    let (mut is_string, mut is_escaped) = (false, false);
    for byte in json {
        if is_string {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => is_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
    }
    (deepest, values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(value: &Value) -> (usize, usize) {
        let children: Vec<&Value> = match value {
            Value::Object(members) => members.values().collect(),
            Value::Array(values) => values.iter().collect(),
            _ => return (0, 1),
        };
        let (depths, counts): (Vec<_>, Vec<_>) = children.into_iter().map(count).unzip();
        (1 + depths.into_iter().max().unwrap_or(0), 1 + counts.into_iter().sum::<usize>())
    }

    #[test]
    fn a_bomb_is_refused_and_a_large_system_is_not() {
        let deep = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(deep(DEPTH_MAX).as_bytes()).is_ok());
        for (bomb, why) in [
            (deep(DEPTH_MAX + 1), "nests deeper"),
            (deep(1 << 20), "nests deeper"),
            ("{\"a\":".repeat(1000), "nests deeper"),
            (format!("[{}0]", "0,".repeat(VALUES_MAX)), "more than"),
            ("[\"".into(), "not JSON"),
        ] {
            let (Unusable::Bomb(error) | Unusable::NotJson(error)) =
                parse(bomb.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let strings = format!("[\"{}\"]", "[{,\\\"".repeat(VALUES_MAX));
        assert!(parse(strings.as_bytes()).is_ok(), "what is in a string does not count");
    }

    proptest! {
        #[test]
        fn any_bytes_end_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(value) = parse(&bytes) {
                let (depth, values) = count(&value);
                prop_assert!(depth <= DEPTH_MAX && values <= VALUES_MAX);
            }
        }

        #[test]
        fn the_measure_is_never_below_the_tree(
            json in proptest::collection::vec(
                prop_oneof![
                    Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just(":"), Just("\"a\""),
                    Just("\"\\\"\""), Just("1"), Just("null")
                ],
                0..40,
            ).prop_map(|parts| parts.concat())
        ) {
            if let Ok(value) = serde_json::from_str::<Value>(&json) {
                let (depth, values) = count(&value);
                let (deepest, most) = measure(json.as_bytes());
                prop_assert_eq!(depth, deepest);
                prop_assert!(values <= most, "{} {} {}", json, values, most);
            }
        }
    }
}
