// SPDX-License-Identifier: AGPL-3.0-or-later
//! The image of an update: its file on the disk, and the download that a BMC is offered.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::AsyncWriteExt;

/// The largest bundles of vendors have some 2 GiB.
pub const BYTES_MAX: u64 = 4 << 30;
/// Characters of a file name in a BMC's URL.
const NAME_CHARS_MAX: usize = 100;

/// A complete image on the disk, which is removed when this is dropped.
#[derive(Debug)]
pub struct ImageFile {
    pub path: PathBuf,
    pub file_name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// Why an image was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    #[error("an image has at most {BYTES_MAX} bytes")]
    TooLarge,
    #[error("the image is empty")]
    Empty,
    #[error("the image broke off")]
    BrokeOff(#[source] axum::Error),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl ImageFile {
    /// Stores a stream as an image. An incomplete image is removed.
    pub async fn take(
        path: PathBuf,
        file_name: &str,
        mut stream: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin,
    ) -> Result<ImageFile, Untaken> {
        let writing = || format!("write {}", path.display());
        let mut image = ImageFile {
            path: path.clone(),
            file_name: plain(file_name),
            bytes: 0,
            sha256: String::new(),
        };
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).await.with_context(writing)?;
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(Untaken::BrokeOff)?;
            image.bytes += chunk.len() as u64;
            if image.bytes > BYTES_MAX {
                return Err(Untaken::TooLarge);
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.with_context(writing)?;
        }
        file.flush().await.with_context(writing)?;
        if image.bytes == 0 {
            return Err(Untaken::Empty);
        }
        image.sha256 = hex::encode(hash.finish().as_ref());
        Ok(image)
    }
}

impl Drop for ImageFile {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// If this fails, the next start of the controller removes it.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove a firmware image");
    }
}

/// Returns a name that is one segment of a URL and has no special meaning in a header.
fn plain(name: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().filter(is_plain).take(NAME_CHARS_MAX).collect();
    // A name of two dots would leave the directory.
    if name.chars().all(|c| c == '.') { "firmware.bin".into() } else { name }
}

/// An image that a BMC may fetch as long as this exists.
#[derive(Debug)]
pub struct Offered {
    pub path: PathBuf,
    pub file_name: String,
    pub bytes: u64,
    pub sha256: String,
    read: AtomicU64,
}

impl Offered {
    pub fn of(image: &ImageFile) -> Offered {
        Offered {
            path: image.path.clone(),
            file_name: image.file_name.clone(),
            bytes: image.bytes,
            sha256: image.sha256.clone(),
            read: AtomicU64::new(0),
        }
    }

    /// Counts bytes that were sent.
    pub fn count(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many bytes were sent, repetitions included.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[test]
    fn a_file_name_is_one_plain_segment() {
        for (name, expected) in [
            ("bmc-2.1_x.bin", "bmc-2.1_x.bin"),
            ("../../etc/passwd", "....etcpasswd"),
            ("..", "firmware.bin"),
            ("a\"; b\r\nc.exe", "abc.exe"),
            ("", "firmware.bin"),
        ] {
            assert_eq!(plain(name), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn an_image_is_whole_or_not_there_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.image");
        let broken = [Ok(Bytes::from("ab")), Err(axum::Error::new(std::io::Error::other("cut")))];
        let taken = ImageFile::take(path.clone(), "x", stream::iter(broken)).await;
        assert!(matches!(taken, Err(Untaken::BrokeOff(_))), "{taken:?}");
        assert!(!path.exists());
        let none = ImageFile::take(path.clone(), "x", stream::iter([])).await;
        assert!(matches!(none, Err(Untaken::Empty)), "{none:?}");
        let whole = [Ok(Bytes::from("a")), Ok(Bytes::from("bc"))];
        let image = ImageFile::take(path.clone(), "x", stream::iter(whole)).await.unwrap();
        assert_eq!((image.bytes, std::fs::read(&path).unwrap().as_slice()), (3, &b"abc"[..]));
        assert_eq!(image.sha256, hex::encode(crate::keys::sha256(b"abc")));
        drop(image);
        assert!(!path.exists());
    }
}
