// SPDX-License-Identifier: AGPL-3.0-or-later
//! The caller of a request and its rights. The host of the registry authenticates the caller and puts an [`Access`]
//! into the request's extensions. A request without one is refused.

use oci::{Digest, Repository};

use crate::policy::Prefix;

/// A principal and its rights at the time of this request.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its name in the audit log; never a secret.
    pub who: String,
    pub grant: Grant,
}

#[derive(Debug, Clone)]
pub enum Grant {
    /// Everything, including the removal of an immutable tag.
    Administer,
    /// Repositories below these prefixes. The right to push includes the right to pull.
    Prefixes { pull: Vec<Prefix>, push: Vec<Prefix> },
    /// Pull only: one manifest and everything that it refers to. For a machine and the artifact of its job.
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

    /// Whether immutability and the limits of publishers do not apply to the caller. Deleting itself needs only the
    /// right to push.
    pub fn may_administer(&self) -> bool {
        match &self.grant {
            Grant::Administer => true,
            Grant::Prefixes { .. } | Grant::Artifact { .. } => false,
        }
    }

    /// The caller, as the owner of an upload that it begins.
    pub(crate) fn uploader(&self) -> Uploader<'_> {
        match self.may_administer() {
            true => Uploader::Admin(&self.who),
            false => Uploader::Publisher(&self.who),
        }
    }

    /// Whether the caller may pull everything in this repository, including its lists.
    pub fn may_pull(&self, repository: &Repository) -> bool {
        match &self.grant {
            Grant::Administer => true,
            Grant::Prefixes { pull, push } => {
                pull.iter().chain(push).any(|prefix| prefix.covers(repository))
            }
            Grant::Artifact { .. } => false,
        }
    }

    /// The one manifest in this repository whose tree the caller may pull although it has no right to the repository.
    pub fn artifact_in(&self, wanted: &Repository) -> Option<&Digest> {
        match &self.grant {
            Grant::Administer | Grant::Prefixes { .. } => None,
            Grant::Artifact { repository, digest } => (repository == wanted).then_some(digest),
        }
    }
}
