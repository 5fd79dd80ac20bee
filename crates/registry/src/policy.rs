// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the registry keeps, for how long, and what nobody may change.

use std::time::Duration;

use oci::{Repository, is_repository};

/// A subtree of repositories: `os-images/` has `os-images/debian` in it but not `os-images-old`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a prefix of repositories; write such as os-images/, or * for all")]
pub struct InvalidPrefix(String);

/// The rules of one registry.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A tag in these is never moved to another manifest.
    pub immutable: Vec<Prefix>,
    /// In these, a collection keeps only so many tags of each repository, the last moved ones.
    pub keep_last: Vec<(Prefix, usize)>,
    /// What a client was told to be there stays at least so long, although nothing refers to it yet.
    pub lease: Duration,
    /// How long a manifest without a tag stays: jobs name manifests by digest.
    pub untagged: Duration,
    /// An upload that nobody continues is removed after this.
    pub upload_idle: Duration,
    /// How many uploads may be open at once.
    pub uploads: UploadLimits,
    /// Uploads never take the last bytes of the filesystem: databases and logs need them.
    pub keep_free_bytes: u64,
}

/// Open uploads at once: each is two files, and half a kilobyte of memory.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    pub most: usize,
    /// Of those, one publisher's.
    pub of_one: usize,
    /// The last places are for admins: however many publishers fill theirs, somebody can still mend it by a push.
    pub for_admins: usize,
}

impl Default for UploadLimits {
    /// A client pushes some ten layers at once, and a fleet's builders may share a token.
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

    /// How many tags of this repository a collection keeps; the longest prefix decides.
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

    /// As it is written.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "*" } else { &self.0 }
    }
}

impl std::str::FromStr for Prefix {
    type Err = InvalidPrefix;

    /// `a/b/`, or `a/b` which means the same, or `*`.
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
