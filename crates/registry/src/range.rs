// SPDX-License-Identifier: AGPL-3.0-or-later
//! Parsers for the `Range` of a download (RFC 9110, section 14) and the `Content-Range` of an upload's chunk
//! (distribution-spec, Pushing a blob in chunks).

/// The part of a file that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file. Also for a header that is malformed or names several ranges, which a server may ignore. A
    /// range that ends before it begins is refused instead: clients that send one cannot use the whole file.
    All,
    /// From `start` to before `end`; never empty.
    Part { start: u64, end: u64 },
    /// The range lies outside the file.
    Unsatisfiable,
}

/// The part that a `Range` header requests from a file of this size.
pub fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header
        .and_then(|header| header.strip_prefix("bytes="))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Wanted::All;
    };
    match (number(first), number(last)) {
        (None, Some(count)) if first.is_empty() => {
            part(size.saturating_sub(count), size, count > 0)
        }
        (Some(start), None) if last.is_empty() => part(start, size, true),
        (Some(start), Some(last)) => part(start, last.saturating_add(1).min(size), true),
        _ => Wanted::All,
    }
}

fn part(start: u64, end: u64, is_satisfiable: bool) -> Wanted {
    if is_satisfiable && start < end { Wanted::Part { start, end } } else { Wanted::Unsatisfiable }
}

/// A chunk's position: its first byte and the byte after its last.
pub(crate) fn chunk(header: &str) -> Option<(u64, u64)> {
    let range = header.trim();
    // The spec's form is `START-END`. HTTP's form has a unit before it and a total after it.
    let range = range.strip_prefix("bytes ").unwrap_or(range);
    let range = range.split_once('/').map_or(range, |(range, _)| range);
    let (first, last) = range.split_once('-')?;
    let (start, last) = (number(first)?, number(last)?);
    let end = last.checked_add(1)?;
    (start < end).then_some((start, end))
}

/// Accepts digits only: Rust's parser also accepts a plus sign. A number beyond 64 bits is past the end of every
/// file.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        for (header, expected) in [
            (None, Wanted::All),
            (Some("bytes=0-"), Wanted::Part { start: 0, end: 10 }),
            (Some("bytes=0-0"), Wanted::Part { start: 0, end: 1 }),
            (Some("bytes=3-5"), Wanted::Part { start: 3, end: 6 }),
            (Some("bytes=3-99"), Wanted::Part { start: 3, end: 10 }),
            (Some("bytes=-4"), Wanted::Part { start: 6, end: 10 }),
            (Some("bytes=-99"), Wanted::Part { start: 0, end: 10 }),
            (Some("bytes=-0"), Wanted::Unsatisfiable),
            (Some("bytes=10-"), Wanted::Unsatisfiable),
            (Some("bytes=18446744073709551615-"), Wanted::Unsatisfiable),
            (Some("bytes=0-18446744073709551615"), Wanted::Part { start: 0, end: 10 }),
            (Some("bytes=5-3"), Wanted::Unsatisfiable),
            (Some("bytes=0-1,3-4"), Wanted::All),
            (Some("bytes=+1-2"), Wanted::All),
            (Some("bytes=-"), Wanted::All),
            (Some("bytes=99999999999999999999-"), Wanted::Unsatisfiable),
            (Some("lines=0-1"), Wanted::All),
            (Some("é"), Wanted::All),
        ] {
            assert_eq!(wanted(header, 10), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn chunks_say_where_they_are() {
        for (header, expected) in [
            ("0-2", Some((0, 3))),
            ("5-5", Some((5, 6))),
            ("bytes 5-9/100", Some((5, 10))),
            ("5-4", None),
            ("-4", None),
            ("4-", None),
            ("a-b", None),
            ("0-18446744073709551615", None),
            ("", None),
        ] {
            assert_eq!(chunk(header), expected, "{header:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_for_lies_within_the_file(
            header in "(bytes=)?[0-9+ ,x-]{0,24}|\\PC{0,24}",
            size in proptest::num::u64::ANY,
        ) {
            match wanted(Some(&header), size) {
                Wanted::All | Wanted::Unsatisfiable => {}
                Wanted::Part { start, end } => proptest::prop_assert!(start < end && end <= size),
            }
        }

        #[test]
        fn a_chunk_is_never_empty(header in "(bytes )?[0-9/ *-]{0,44}|\\PC{0,24}") {
            if let Some((start, end)) = chunk(&header) {
                proptest::prop_assert!(start < end);
            }
        }
    }
}
