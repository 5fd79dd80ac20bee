// SPDX-License-Identifier: AGPL-3.0-or-later
//! Parses paths below `/v2`. No part of a path reaches a file name or a query unparsed.

use oci::{Digest, Repository, TagOrDigest};
use uuid::Uuid;

use super::query::decode;
use super::refusal::{Code, Refusal, refuse};

#[derive(Debug, PartialEq)]
pub enum Target {
    Base,
    Catalog,
    Tags(Repository),
    Referrers(Repository, Digest),
    Blob(Repository, Digest),
    Uploads(Repository),
    Upload(Repository, Uuid),
    Manifest(Repository, TagOrDigest),
}

/// A path that is not a valid target.
#[derive(Debug)]
pub struct Unfit {
    pub refusal: Refusal,
    /// The code for a request that reads or deletes: no repository, blob or manifest can have an invalid name, so it
    /// is not found. Absent where the specification requires 400 for these requests too.
    unknown: Option<Code>,
}

impl Unfit {
    /// The refusal for a request that reads or deletes.
    pub fn not_found(self) -> Refusal {
        let Unfit { mut refusal, unknown } = self;
        refusal.code = unknown.unwrap_or(refusal.code);
        refusal
    }
}

pub fn parse(path: &str) -> Result<Target, Unfit> {
    let nothing = || Unfit {
        refusal: refuse(Code::NameUnknown, "there is nothing at this path"),
        unknown: None,
    };
    match path {
        "" | "/" => return Ok(Target::Base),
        "/_catalog" => return Ok(Target::Catalog),
        _ => {}
    }
    let path = path.strip_prefix('/').ok_or_else(nothing)?;
    // Some clients send `…/blobs/uploads` without the trailing slash.
    if let Some(name) = path.strip_suffix("/blobs/uploads") {
        return Ok(Target::Uploads(repository(name)?));
    }
    let (rest, last) = path.rsplit_once('/').ok_or_else(nothing)?;
    let last = decode(last).ok_or_else(nothing)?;
    // Longer suffixes first: a repository may be called `blobs` or `a/manifests`.
    if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        let name = repository(name)?;
        if last.is_empty() {
            return Ok(Target::Uploads(name));
        }
        let unknown = |_| Unfit {
            refusal: refuse(Code::BlobUploadUnknown, "there is no such upload"),
            unknown: None,
        };
        return last.parse().map(|id| Target::Upload(name, id)).map_err(unknown);
    }
    if let Some(name) = rest.strip_suffix("/blobs") {
        return Ok(Target::Blob(repository(name)?, digest_of(&last, Some(Code::BlobUnknown))?));
    }
    if let Some(name) = rest.strip_suffix("/referrers") {
        // "a `<digest>` with an invalid syntax, a 400 Bad Request MUST be returned" (Listing Referrers).
        return Ok(Target::Referrers(repository(name)?, digest_of(&last, None)?));
    }
    if let Some(name) = rest.strip_suffix("/manifests") {
        let name = repository(name)?;
        let wrong = |error: oci::InvalidTagOrDigest| {
            let code = match error {
                oci::InvalidTagOrDigest::Tag(_) => Code::ManifestInvalid,
                oci::InvalidTagOrDigest::Digest(_) => Code::DigestInvalid,
            };
            Unfit { refusal: refuse(code, error.to_string()), unknown: Some(Code::ManifestUnknown) }
        };
        return last.parse().map(|reference| Target::Manifest(name, reference)).map_err(wrong);
    }
    match (rest.strip_suffix("/tags"), last.as_str()) {
        (Some(name), "list") => Ok(Target::Tags(repository(name)?)),
        _ => Err(nothing()),
    }
}

fn repository(text: &str) -> Result<Repository, Unfit> {
    text.parse().map_err(|error: oci::InvalidRepository| Unfit {
        refusal: refuse(Code::NameInvalid, error.to_string()),
        unknown: Some(Code::NameUnknown),
    })
}

fn digest_of(text: &str, unknown: Option<Code>) -> Result<Digest, Unfit> {
    digest(text).map_err(|refusal| Unfit { refusal, unknown })
}

pub fn digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|error: oci::InvalidDigest| refuse(Code::DigestInvalid, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_target_or_none() {
        let hex = "a".repeat(64);
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        let name = |text: &str| text.parse::<Repository>().unwrap();
        let id = Uuid::from_u128(7);
        for (path, expected) in [
            (String::new(), Target::Base),
            ("/".into(), Target::Base),
            ("/_catalog".into(), Target::Catalog),
            ("/a/b/tags/list".into(), Target::Tags(name("a/b"))),
            (format!("/a/blobs/sha256:{hex}"), Target::Blob(name("a"), digest.clone())),
            (format!("/a/blobs/sha256%3A{hex}"), Target::Blob(name("a"), digest.clone())),
            (format!("/blobs/blobs/sha256:{hex}"), Target::Blob(name("blobs"), digest.clone())),
            (format!("/a/referrers/sha256:{hex}"), Target::Referrers(name("a"), digest.clone())),
            ("/a/blobs/uploads".into(), Target::Uploads(name("a"))),
            ("/a/blobs/uploads/".into(), Target::Uploads(name("a"))),
            (format!("/a/blobs/uploads/{id}"), Target::Upload(name("a"), id)),
            ("/a/manifests/v1".into(), Target::Manifest(name("a"), "v1".parse().unwrap())),
            (
                "/a/manifests/manifests/v1".into(),
                Target::Manifest(name("a/manifests"), "v1".parse().unwrap()),
            ),
        ] {
            assert_eq!(parse(&path).ok(), Some(expected), "{path}");
        }
        // The code for a request that writes, and for one that reads.
        for (path, written, looked_up) in [
            ("/a", Code::NameUnknown, Code::NameUnknown),
            ("/a/tags/lists", Code::NameUnknown, Code::NameUnknown),
            ("/tags/list", Code::NameUnknown, Code::NameUnknown),
            ("/A/tags/list", Code::NameInvalid, Code::NameUnknown),
            ("/../tags/list", Code::NameInvalid, Code::NameUnknown),
            ("/a/../../etc/passwd/tags/list", Code::NameInvalid, Code::NameUnknown),
            ("/a%2f..%2fb/tags/list", Code::NameInvalid, Code::NameUnknown),
            ("/a/blobs/sha256:../../x", Code::NameUnknown, Code::NameUnknown),
            ("/a/blobs/sha256%3A..%2F..%2Fx", Code::DigestInvalid, Code::BlobUnknown),
            ("/a/blobs/md5:00", Code::DigestInvalid, Code::BlobUnknown),
            ("/a/referrers/md5:00", Code::DigestInvalid, Code::DigestInvalid),
            ("/a/blobs/uploads/../x", Code::NameUnknown, Code::NameUnknown),
            ("/a/blobs/uploads/..%2Fx", Code::BlobUploadUnknown, Code::BlobUploadUnknown),
            ("/a/manifests/sha256:totallywrong", Code::DigestInvalid, Code::ManifestUnknown),
            ("/a/manifests/.INVALID_MANIFEST_NAME", Code::ManifestInvalid, Code::ManifestUnknown),
            ("/a/manifests/..", Code::ManifestInvalid, Code::ManifestUnknown),
            ("/a/manifests/%00", Code::ManifestInvalid, Code::ManifestUnknown),
        ] {
            assert_eq!(parse(path).unwrap_err().refusal.code, written, "{path}");
            assert_eq!(parse(path).unwrap_err().not_found().code, looked_up, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics_or_gets_a_name_that_is_none(
            path in "(/[a-zA-Z0-9._%:-]{0,12}){0,6}(/blobs|/manifests|/tags|/uploads|/referrers)?/\\PC{0,80}",
        ) {
            if let Ok(Target::Manifest(name, _) | Target::Tags(name) | Target::Uploads(name)) =
                parse(&path)
            {
                let is_plain = name.as_str().split('/').all(|part| !part.starts_with('.'));
                proptest::prop_assert!(is_plain && oci::is_repository(name.as_str()));
            }
        }
    }
}
