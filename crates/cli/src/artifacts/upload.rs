// SPDX-License-Identifier: AGPL-3.0-or-later
//! Uploading a blob to the registry in chunks. After a broken connection the upload continues where the registry
//! is. It also continues after this program was interrupted: the upload's URL is kept in the cache directory until
//! the upload is complete.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use oci::{Digest, Repository, media_type};

use super::bar::bar;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::note;

/// Size of a chunk: at most this much is lost when a connection breaks.
const CHUNK_BYTES: u64 = 32 << 20;
/// How many broken connections in a row are accepted without a byte of progress.
const TRIES_MAX: u32 = 6;

/// Uploads a file's bytes unless the repository has them.
pub fn upload(
    client: &Client,
    repository: &Repository,
    digest: &Digest,
    file: &mut File,
) -> Result<(), Failure> {
    if client.has(&format!("/v2/{repository}/blobs/{digest}"))? {
        return Ok(());
    }
    let size = file.metadata().map_err(anyhow::Error::from)?.len();
    let bar = bar("upload", size);
    let kept = kept_place(client, repository, digest);
    let known = kept.as_ref().and_then(|path| fs::read_to_string(path).ok());
    let (mut location, mut offset) = match known {
        Some(location) => match client.upload_offset(&location)? {
            // If the registry has more than the file, the upload is of another file.
            Some(offset) if offset <= size => (location, offset),
            _ => begin(client, repository, kept.as_ref())?,
        },
        None => begin(client, repository, kept.as_ref())?,
    };
    let mut tries = 0;
    while offset < size {
        bar.set_position(offset);
        match send_chunk(client, &location, file, offset, size, &bar) {
            Ok(end) => {
                offset = end;
                tries = 0;
            }
            Err(failure) => {
                tries += 1;
                if tries >= TRIES_MAX || !is_passing(&failure) {
                    return Err(failure);
                }
                std::thread::sleep(Duration::from_millis(250 << tries));
                match client.upload_offset(&location) {
                    Ok(Some(now)) if now <= size => {
                        if now > offset {
                            tries = 0;
                        }
                        offset = now;
                    }
                    Ok(_) => (location, offset) = begin(client, repository, kept.as_ref())?,
                    // The registry is still unreachable; the next try reports it.
                    Err(_) => {}
                }
            }
        }
    }
    let place = format!("{location}?digest={digest}");
    client.put_bytes(&place, media_type::OCTET_STREAM, 0, &mut std::io::empty())?;
    if let Some(kept) = kept
        && let Err(error) = fs::remove_file(&kept)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        note(&format!("{} stays: {error}", kept.display()));
    }
    bar.finish_and_clear();
    Ok(())
}

fn begin(
    client: &Client,
    repository: &Repository,
    kept: Option<&PathBuf>,
) -> Result<(String, u64), Failure> {
    let location = client.start_upload(&format!("/v2/{repository}/blobs/uploads/"))?;
    if let Some(kept) = kept {
        // A failure affects only a later run, which starts anew.
        let parent = kept.parent().unwrap_or(kept);
        let written = fs::create_dir_all(parent).and_then(|()| fs::write(kept, &location));
        if let Err(error) = written {
            note(&format!("{} cannot be kept: {error}", kept.display()));
        }
    }
    Ok((location, 0))
}

/// Sends the chunk at `offset`; returns the offset of the next one.
fn send_chunk(
    client: &Client,
    location: &str,
    file: &mut File,
    offset: u64,
    size: u64,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let end = (offset + CHUNK_BYTES).min(size);
    file.seek(SeekFrom::Start(offset)).map_err(anyhow::Error::from)?;
    let mut chunk = bar.wrap_read(file.take(end - offset));
    client.patch_bytes(location, offset, end, &mut chunk)?;
    Ok(end)
}

/// Returns whether another try may succeed.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable(_) => true,
        // 409: the previous request is still ending. 416: our offset is wrong. 404: begin again.
        Failure::Refused(problem) => {
            matches!(problem.status, 404 | 408 | 409 | 416 | 429)
                || problem.status >= 500 && problem.status != 507
        }
        Failure::JobFailed(_)
        | Failure::NotReady
        | Failure::ProbeFailed
        | Failure::Invalid(_)
        | Failure::UpdateFailed(_)
        | Failure::Local(_) => false,
    }
}

/// Returns the file in which the URL of this upload is kept; `None` without a home directory.
fn kept_place(client: &Client, repository: &Repository, digest: &Digest) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let what = format!("{}\n{repository}\n{digest}", client.base());
    Some(cache.join("shoal/uploads").join(Digest::of(what.as_bytes()).hex()))
}

#[cfg(test)]
mod tests {
    use api::problem::Problem;

    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let refused = |status| {
            Failure::Refused(Box::new(Problem {
                kind: String::new(),
                title: String::new(),
                status,
                detail: String::new(),
                errors: Vec::new(),
            }))
        };
        for (status, expected) in [
            (400, false),
            (401, false),
            (403, false),
            (409, true),
            (416, true),
            (500, true),
            (507, false),
        ] {
            assert_eq!(is_passing(&refused(status)), expected, "{status}");
        }
        assert!(is_passing(&Failure::Unreachable(String::new())));
    }
}
