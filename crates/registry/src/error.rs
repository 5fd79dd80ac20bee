// SPDX-License-Identifier: AGPL-3.0-or-later
//! Errors, by what the caller can do about them. `http/refusal` maps them to responses.

use oci::{Digest, Repository, TagOrDigest};

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the directory cannot be used")]
    Directory(#[source] std::io::Error),
    #[error("another process uses the registry's directory")]
    Locked,
    #[error("the database cannot be used")]
    Index(#[from] rusqlite::Error),
    #[error("the registry's index has format {found}; this program reads format {known}")]
    Format { found: i64, known: i64 },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no repository {0}")]
    RepositoryUnknown(Repository),
    #[error("{0} has no blob {1}")]
    BlobUnknown(Repository, Digest),
    #[error("{0} has no manifest {1}")]
    ManifestUnknown(Repository, TagOrDigest),
    #[error("there is no such upload")]
    UploadUnknown,
    #[error("another request is writing to this upload")]
    UploadBusy,
    #[error("{whose} has {open} open uploads and may have no more; finish or cancel some")]
    TooManyUploads { whose: String, open: usize },
    #[error("the content is {found}, not {wanted}")]
    Digest { wanted: Digest, found: Digest },
    #[error("{0}")]
    ManifestInvalid(String),
    /// A manifest refers to content that is not in its repository.
    #[error("{0} has no {1}; push it first")]
    ReferenceUnknown(Repository, Digest),
    #[error("{digest} has {found} bytes, but the manifest says {said}")]
    ReferenceSize { digest: Digest, said: u64, found: u64 },
    #[error("{digest} is part of the manifest {by}; delete that first")]
    InUse { digest: Digest, by: String },
    /// The bytes already have another media type in this repository. A push must not change what an existing tag
    /// stands for.
    #[error("{digest} was pushed as {first}; it cannot be {wanted} too in the same repository")]
    MediaType { digest: Digest, first: String, wanted: String },
    #[error("the tag {0} is immutable; push under another one")]
    Immutable(String),
    /// A deletion that would remove an immutable tag.
    #[error("{object} cannot be deleted: the tag {tag} is immutable; an admin can delete it")]
    Kept { object: TagOrDigest, tag: String },
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("{0} is not as If-Match or If-None-Match demands")]
    Precondition(TagOrDigest),
    /// `may_pass`: other unfinished uploads hold space that may become free again.
    #[error("the disk has no room for {wanted} more bytes")]
    Full { wanted: u64, may_pass: bool },
    /// The disk has space, but this publisher has used its share.
    #[error(
        "the unfinished uploads of {who} have {held} bytes of the disk and may have no more now; finish or cancel some"
    )]
    ShareUsed { who: String, held: u64 },
    #[error("a bundle is refused: {0}")]
    Bundle(String),
    #[error("a collection, an export or an import is under way; try again later")]
    Maintained,
    #[error("read or write the registry's files")]
    Files(#[from] std::io::Error),
    #[error("read or write the registry's index")]
    Index(#[from] rusqlite::Error),
}

impl Error {
    pub(crate) fn bundle(why: impl Into<String>) -> Error {
        Error::Bundle(why.into())
    }
}
