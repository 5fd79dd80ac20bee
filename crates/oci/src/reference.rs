// SPDX-License-Identifier: AGPL-3.0-or-later
//! References: `host[:port]/repository[:tag][@digest]`, always with a host.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::name::{Repository, Tag, TagOrDigest};

/// The location of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `host` or `host:port`.
    pub authority: String,
    pub repository: Repository,
    pub tag: Option<Tag>,
    pub digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a reference: {why}; write host[:port]/repository[:tag][@digest]")]
pub struct InvalidReference {
    text: String,
    why: &'static str,
}

impl Reference {
    /// What to request from the registry: the digest if there is one, else the tag, else `latest`.
    pub fn tag_or_digest(&self) -> TagOrDigest {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => TagOrDigest::Digest(digest.clone()),
            (None, Some(tag)) => TagOrDigest::Tag(tag.clone()),
            (None, None) => TagOrDigest::Tag(Tag::latest()),
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
            Some((repository, tag)) => (repository, Some(tag)),
        };
        if !is_authority(authority) {
            return Err(invalid("the host is wrong"));
        }
        let repository = repository.parse().map_err(|_| invalid("the repository is wrong"))?;
        let tag = tag.map(str::parse).transpose().map_err(|_| invalid("the tag is wrong"))?;
        Ok(Reference { authority: authority.into(), repository, tag, digest })
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
            assert_eq!(reference.repository.as_str(), repository);
            assert_eq!(reference.tag_or_digest().to_string(), wanted);
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
}
