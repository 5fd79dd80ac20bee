// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who asks, and what they may do where. Whoever mounts the registry finds out and puts an [`Access`]
//! into the request's extensions; a request without one is refused.

use oci::{Digest, Repository};

use crate::policy::Prefix;

/// A principal and its rights, as of this request.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its name in the audit log; never a secret.
    pub who: String,
    pub grant: Grant,
}

#[derive(Debug, Clone)]
pub enum Grant {
    /// Everything, also what immutability keeps from others: removing a tag.
    Administer,
    /// Repositories below these prefixes. Who may push may pull.
    Prefixes { pull: Vec<Prefix>, push: Vec<Prefix> },
    /// One manifest and what it refers to, pull only: a machine and the artifact of its job.
    Artifact { repository: Repository, digest: Digest },
}

/// The caller that begins an upload, by the name of its token. Each publisher has its own limits.
#[derive(Debug, Clone, Copy)]
pub enum Uploader<'a> {
    Admin(&'a str),
    Publisher(&'a str),
}

impl<'a> Uploader<'a> {
    pub fn who(self) -> &'a str {
        match self {
            Uploader::Admin(who) | Uploader::Publisher(who) => who,
        }
    }

    pub fn is_admin(self) -> bool {
        match self {
            Uploader::Admin(_) => true,
            Uploader::Publisher(_) => false,
        }
    }
}

impl Access {
    pub fn may_push(&self, repository: &Repository) -> bool {
        match &self.grant {
            Grant::Administer => true,
            Grant::Prefixes { push, .. } => push.iter().any(|prefix| prefix.covers(repository)),
            Grant::Artifact { .. } => false,
        }
    }

    /// Deleting is pushing's undoing: the same right. Tags that are immutable need more.
    pub fn may_administer(&self) -> bool {
        match &self.grant {
            Grant::Administer => true,
            Grant::Prefixes { .. } | Grant::Artifact { .. } => false,
        }
    }

    /// As whoever begins an upload.
    pub(crate) fn uploader(&self) -> Uploader<'_> {
        match self.may_administer() {
            true => Uploader::Admin(&self.who),
            false => Uploader::Publisher(&self.who),
        }
    }

    /// Everything in this repository, also its lists.
    pub fn may_pull(&self, repository: &Repository) -> bool {
        match &self.grant {
            Grant::Administer => true,
            Grant::Prefixes { pull, push } => {
                pull.iter().chain(push).any(|prefix| prefix.covers(repository))
            }
            Grant::Artifact { .. } => false,
        }
    }

    /// The one manifest in this repository whose tree may be pulled although the rest may not.
    pub fn artifact_in(&self, wanted: &Repository) -> Option<&Digest> {
        match &self.grant {
            Grant::Administer | Grant::Prefixes { .. } => None,
            Grant::Artifact { repository, digest } => (repository == wanted).then_some(digest),
        }
    }
}
