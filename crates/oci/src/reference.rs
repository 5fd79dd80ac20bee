// SPDX-License-Identifier: AGPL-3.0-or-later
//! References: `host[:port]/repository[:tag][@digest]`, always with a host.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Longest repository name (distribution-spec: clients may limit host and name to 255).
const REPOSITORY_BYTES_MAX: usize = 255;

/// Where an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `host` or `host:port`.
    pub authority: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a reference: {why}; write host[:port]/repository[:tag][@digest]")]
pub struct InvalidReference {
    text: String,
    why: &'static str,
}

impl Reference {
    /// What to ask the registry for: the digest where there is one, else the tag, else `latest`.
    pub fn tag_or_digest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Reference, InvalidReference> {
        let invalid = |why| InvalidReference { text: text.chars().take(200).collect(), why };
        let (authority, rest) = text.split_once('/').ok_or_else(|| invalid("no host"))?;
        let (name, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|_| invalid("the digest is wrong"))?))
            }
        };
        let (repository, tag) = match name.rsplit_once(':') {
            None => (name, None),
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
        };
        if !is_authority(authority) {
            return Err(invalid("the host is wrong"));
        }
        if !is_repository(repository) {
            return Err(invalid("the repository is wrong"));
        }
        if !tag.as_deref().is_none_or(is_tag) {
            return Err(invalid("the tag is wrong"));
        }
        Ok(Reference { authority: authority.into(), repository: repository.into(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.authority, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_authority(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !host.is_empty() && host.bytes().all(is_host) && port.parse::<u16>().is_ok_and(|port| port > 0)
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
pub fn is_tag(text: &str) -> bool {
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
    fn references_come_apart_and_together() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, authority, repository, wanted) in [
            ("controller/os-images/debian:13".to_owned(), "controller", "os-images/debian", "13"),
            ("10.0.2.2:8443/a".into(), "10.0.2.2:8443", "a", "latest"),
            (format!("h/a/b:t@{digest}"), "h", "a/b", digest.as_str()),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.authority, authority);
            assert_eq!(reference.repository, repository);
            assert_eq!(reference.tag_or_digest(), wanted);
            assert_eq!(reference.to_string(), text);
        }
        for bad in [
            "",
            "a",
            "/a",
            "h/",
            "h/A",
            "h/a//b",
            "h/../b",
            "h/a:",
            "h/a:.x",
            "h/a@sha256:0",
            "h:0/a",
            "h:99999/a",
            "u@h/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
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
