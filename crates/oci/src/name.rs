// SPDX-License-Identifier: AGPL-3.0-or-later
//! Types for names within a registry: a repository, a tag, and a tag or digest.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, InvalidDigest};

/// The name of a repository, such as `os-images/debian`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

/// A name for a manifest within its repository, such as `13`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a repository name; write lower-case components joined by /")]
pub struct InvalidRepository(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a tag; write 1 to 128 letters, digits, _ . and -, beginning with none of . -"
)]
pub struct InvalidTag(String);

/// Names the kind that the text was meant as: a digest contains a colon, and a tag never does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTagOrDigest {
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
}

/// The reference to a manifest in a request. The two cannot be confused, because a tag contains no colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagOrDigest {
    Tag(Tag),
    Digest(Digest),
}

/// Longest repository name (distribution-spec: clients may limit host and name to 255).
const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest part of untrusted text that an error repeats.
const SHOWN_MAX: usize = 200;

impl Repository {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The tag of a reference without a tag.
    pub fn latest() -> Tag {
        Tag("latest".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = InvalidRepository;

    fn from_str(text: &str) -> Result<Repository, InvalidRepository> {
        if is_repository(text) {
            Ok(Repository(text.to_owned()))
        } else {
            Err(InvalidRepository(text.chars().take(SHOWN_MAX).collect()))
        }
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Tag, InvalidTag> {
        if is_tag(text) {
            Ok(Tag(text.to_owned()))
        } else {
            Err(InvalidTag(text.chars().take(SHOWN_MAX).collect()))
        }
    }
}

impl FromStr for TagOrDigest {
    type Err = InvalidTagOrDigest;

    fn from_str(text: &str) -> Result<TagOrDigest, InvalidTagOrDigest> {
        Ok(match text.contains(':') {
            true => TagOrDigest::Digest(text.parse()?),
            false => TagOrDigest::Tag(text.parse()?),
        })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TagOrDigest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            TagOrDigest::Tag(tag) => tag.fmt(f),
            TagOrDigest::Digest(digest) => digest.fmt(f),
        }
    }
}

/// The repository grammar: components of `[a-z0-9]+` joined by `.`, `_`, `__` or hyphens, with `/`
/// between them.
pub fn is_repository(text: &str) -> bool {
    let is_component = |component: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = component.as_bytes();
        let ends_plain =
            bytes.first().copied().is_some_and(plain) && bytes.last().copied().is_some_and(plain);
        let is_separator = |run: &[u8]| {
            matches!(run, b"." | b"_" | b"__")
                || (!run.is_empty() && run.iter().all(|b| *b == b'-'))
        };
        ends_plain
            && bytes.split(|byte| plain(*byte)).all(|run| run.is_empty() || is_separator(run))
    };
    !text.is_empty() && text.len() <= REPOSITORY_BYTES_MAX && text.split('/').all(is_component)
}

/// The tag grammar: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let more = |byte: u8| word(byte) || matches!(byte, b'.' | b'-');
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_a_digest_or_a_tag_and_never_both() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            digest.parse::<TagOrDigest>().unwrap(),
            TagOrDigest::Digest(digest.parse().unwrap())
        );
        assert_eq!("v1".parse::<TagOrDigest>().unwrap(), TagOrDigest::Tag("v1".parse().unwrap()));
        for (bad, meant) in [
            ("", "not a tag"),
            ("sha256:totallywrong", "not a digest"),
            ("md5:00", "not a digest"),
            (":", "not a digest"),
            (".x", "not a tag"),
            ("-x", "not a tag"),
            ("a/b", "not a tag"),
            ("..", "not a tag"),
            (&"a".repeat(129), "not a tag"),
        ] {
            let error = bad.parse::<TagOrDigest>().unwrap_err().to_string();
            assert!(error.contains(meant), "{bad:?}: {error}");
        }
    }

    #[test]
    fn repository_names_follow_the_grammar() {
        for good in ["a", "a/b/c", "a.b", "a_b", "a__b", "a---b", "0/1"] {
            assert!(is_repository(good), "{good:?}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "a..b",
            "a___b",
            "a._b",
            "-a",
            "a-",
            "A",
            "a b",
            "a/../b",
            &"a".repeat(256),
        ] {
            assert!(!is_repository(bad), "{bad:?}");
        }
    }
}
