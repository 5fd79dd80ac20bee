// SPDX-License-Identifier: AGPL-3.0-or-later
//! Query parameters, and pages of lists with the link to the next one (RFC 8288).

use super::refusal::{Code, Refusal, refuse};
use crate::storage::Page;

/// Most items in one response, whatever the client requests: no allocation depends on the client's number
/// (CVE-2023-2253).
const PAGE_MAX: usize = 1000;

/// A parameter's value. `+` is not decoded to a space: media types contain it, and no value here contains spaces.
pub fn value(query: &str, name: &str) -> Option<String> {
    decode(raw_values(query, name).next()?)
}

/// All values of a parameter. A value that cannot be decoded is returned as received; it contains `%` and matches no
/// name.
pub fn values(query: &str, name: &str) -> Vec<String> {
    raw_values(query, name).map(|text| decode(text).unwrap_or_else(|| text.to_owned())).collect()
}

fn raw_values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

/// Decodes percent-escapes. `None` if the result is not valid text.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2)?;
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok()?;
            bytes.push(byte[0]);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The page that a client requests with `n` and `last`. `None` for `n=0`.
pub fn page(query: &str) -> Result<Option<Page>, Refusal> {
    let count = match value(query, "n") {
        None => PAGE_MAX,
        Some(text) => match text.parse::<u64>() {
            Ok(count) => usize::try_from(count).unwrap_or(PAGE_MAX).min(PAGE_MAX),
            Err(_) => return Err(refuse(Code::PageInvalid, "n is not a number")),
        },
    };
    let after = value(query, "last").unwrap_or_default();
    // One more item than requested shows whether there is a next page.
    Ok((count > 0).then_some(Page { count: count + 1, after }))
}

/// Cuts a list to its page. Returns the `Link` to the next page, if there is one.
pub fn cut<T>(
    items: &mut Vec<T>,
    page: &Page,
    path: &str,
    key: impl Fn(&T) -> String,
) -> Option<String> {
    let count = page.count - 1;
    if items.len() <= count {
        return None;
    }
    items.truncate(count);
    Some(next_link(path, count, &key(items.last()?)))
}

/// The `Link` to the page after `last`.
pub fn next_link(path: &str, count: usize, last: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("<{path}{joint}n={count}&last={last}>; rel=\"next\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = "digest=sha256%3Aab&mount&from=a%2Fb&artifactType=application/x+json&bad=%zz";
        for (name, expected) in [
            ("digest", Some("sha256:ab")),
            ("mount", Some("")),
            ("from", Some("a/b")),
            ("artifactType", Some("application/x+json")),
            ("bad", None),
            ("absent", None),
            ("dig", None),
        ] {
            assert_eq!(value(query, name).as_deref(), expected, "{name}");
        }
        let tags = values("tag=a&tag=b%2Ec&x=y&tag=%zz&tag", "tag");
        assert_eq!(tags, ["a", "b.c", "%zz", ""]);
    }
}
