// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry's policy: what it keeps, for how long, and which tags are immutable.

use std::time::Duration;

use oci::{Repository, is_repository};

/// A subtree of repositories: `os-images/` contains `os-images/debian` but not `os-images-old`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a prefix of repositories; write such as os-images/, or * for all")]
pub struct InvalidPrefix(String);

/// The rules of one registry.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Tags in these repositories are never moved to another manifest.
    pub immutable: Vec<Prefix>,
    /// How many tags a collection keeps in each repository below a prefix: those that were moved last.
    pub keep_last: Vec<(Prefix, usize)>,
    /// How long content stays at least after a client was told that it exists, although nothing refers to it yet.
    pub lease: Duration,
    /// How long a manifest without a tag stays. Jobs name manifests by digest.
    pub untagged: Duration,
    /// An upload is removed after this time without a request.
    pub upload_idle: Duration,
    /// How many uploads may be open at once.
    pub uploads: UploadLimits,
    /// Bytes of the filesystem that uploads leave free, because databases and logs need them.
    pub keep_free_bytes: u64,
}

/// Limits on uploads that are open at once. Each takes two files and half a kilobyte of memory.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    pub most: usize,
    /// At most this many for one publisher.
    pub of_one: usize,
    /// Reserved for admins, so that an admin can still push a fix when publishers have used up the others.
    pub for_admins: usize,
}

impl Default for UploadLimits {
    /// A client pushes about ten layers at once, and a fleet's builders may share a token.
    fn default() -> UploadLimits {
        UploadLimits { most: 4096, of_one: 512, for_admins: 256 }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        let all_of = |text: &str| Prefix(text.to_owned());
        Policy {
            immutable: vec![all_of("os-images/"), all_of("tools/")],
            keep_last: Vec::new(),
            lease: Duration::from_secs(24 * 3600),
            untagged: Duration::from_secs(7 * 24 * 3600),
            upload_idle: Duration::from_secs(24 * 3600),
            uploads: UploadLimits::default(),
            keep_free_bytes: 512 << 20,
        }
    }
}

impl Policy {
    pub fn is_immutable(&self, repository: &Repository) -> bool {
        self.immutable.iter().any(|prefix| prefix.covers(repository))
    }

    /// How many tags of this repository a collection keeps. The longest matching prefix decides.
    pub fn tags_kept(&self, repository: &Repository) -> Option<usize> {
        let covering = self.keep_last.iter().filter(|(prefix, _)| prefix.covers(repository));
        covering.max_by_key(|(prefix, _)| prefix.0.len()).map(|(_, count)| *count)
    }
}

impl Prefix {
    pub fn covers(&self, repository: &Repository) -> bool {
        repository.as_str().starts_with(&self.0)
            || self.0.strip_suffix('/') == Some(repository.as_str())
    }

    /// The prefix in the syntax that `from_str` reads.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "*" } else { &self.0 }
    }
}

impl std::str::FromStr for Prefix {
    type Err = InvalidPrefix;

    /// Reads `a/b/`, `a/b` (which means the same) or `*`.
    fn from_str(text: &str) -> Result<Prefix, InvalidPrefix> {
        if text == "*" {
            return Ok(Prefix(String::new()));
        }
        let name = text.strip_suffix('/').unwrap_or(text);
        if is_repository(name) {
            Ok(Prefix(format!("{name}/")))
        } else {
            Err(InvalidPrefix(text.chars().take(200).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_component() {
        for (prefix, repository, is_covered) in [
            ("os-images/", "os-images/debian", true),
            ("os-images", "os-images/debian", true),
            ("os-images/", "os-images", true),
            ("os-images/", "os-images-old/debian", false),
            ("os-images/", "x/os-images/debian", false),
            ("*", "anything", true),
        ] {
            let covers = prefix.parse::<Prefix>().unwrap().covers(&repository.parse().unwrap());
            assert_eq!(covers, is_covered, "{prefix} {repository}");
        }
        for bad in ["", "/", "A/", "a//", "../"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
        }
    }
}
