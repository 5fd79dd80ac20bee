// SPDX-License-Identifier: AGPL-3.0-or-later
//! Paths below `/v2`, parsed: nothing of one becomes a file name or a query before.

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

pub fn parse(path: &str) -> Result<Target, Refusal> {
    let nothing = || refuse(Code::NameUnknown, "there is nothing at this path");
    match path {
        "" | "/" => return Ok(Target::Base),
        "/_catalog" => return Ok(Target::Catalog),
        _ => {}
    }
    let path = path.strip_prefix('/').ok_or_else(nothing)?;
    // `…/blobs/uploads` without the slash is how some clients write it.
    if let Some(name) = path.strip_suffix("/blobs/uploads") {
        return Ok(Target::Uploads(repository(name)?));
    }
    let (rest, last) = path.rsplit_once('/').ok_or_else(nothing)?;
    let last = decode(last).ok_or_else(nothing)?;
    // The longer endings first: a repository may be called `blobs` or `a/manifests`.
    if let Some(name) = rest.strip_suffix("/blobs/uploads") {
        let name = repository(name)?;
        if last.is_empty() {
            return Ok(Target::Uploads(name));
        }
        let unknown = |_| refuse(Code::BlobUploadUnknown, "there is no such upload");
        return last.parse().map(|id| Target::Upload(name, id)).map_err(unknown);
    }
    if let Some(name) = rest.strip_suffix("/blobs") {
        return Ok(Target::Blob(repository(name)?, digest(&last)?));
    }
    if let Some(name) = rest.strip_suffix("/referrers") {
        return Ok(Target::Referrers(repository(name)?, digest(&last)?));
    }
    if let Some(name) = rest.strip_suffix("/manifests") {
        let name = repository(name)?;
        let code = if last.contains(':') { Code::DigestInvalid } else { Code::ManifestInvalid };
        let wrong = |error: oci::InvalidTag| refuse(code, error.to_string());
        return last.parse().map(|reference| Target::Manifest(name, reference)).map_err(wrong);
    }
    match (rest.strip_suffix("/tags"), last.as_str()) {
        (Some(name), "list") => Ok(Target::Tags(repository(name)?)),
        _ => Err(nothing()),
    }
}

fn repository(text: &str) -> Result<Repository, Refusal> {
    text.parse()
        .map_err(|error: oci::InvalidRepository| refuse(Code::NameInvalid, error.to_string()))
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
        for (path, code) in [
            ("/a", Code::NameUnknown),
            ("/a/tags/lists", Code::NameUnknown),
            ("/tags/list", Code::NameUnknown),
            ("/A/tags/list", Code::NameInvalid),
            ("/../tags/list", Code::NameInvalid),
            ("/a/../../etc/passwd/tags/list", Code::NameInvalid),
            ("/a%2f..%2fb/tags/list", Code::NameInvalid),
            ("/a/blobs/sha256:../../x", Code::NameUnknown),
            ("/a/blobs/sha256%3A..%2F..%2Fx", Code::DigestInvalid),
            ("/a/blobs/uploads/../x", Code::NameUnknown),
            ("/a/blobs/uploads/..%2Fx", Code::BlobUploadUnknown),
            ("/a/manifests/sha256:totallywrong", Code::DigestInvalid),
            ("/a/manifests/..", Code::ManifestInvalid),
            ("/a/manifests/%00", Code::ManifestInvalid),
        ] {
            assert_eq!(parse(path).unwrap_err().code, code, "{path}");
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
