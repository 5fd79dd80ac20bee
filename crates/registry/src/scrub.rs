// SPDX-License-Identifier: AGPL-3.0-or-later
//! Scrubbing: reads all content again and moves corrupt content out of the way, so that it is reported as absent and
//! a client pushes it again. Nothing is deleted: `quarantine/` keeps the bytes.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use oci::{Digest, Hasher};

use crate::storage::Storage;
use crate::storage::files::hash;
use crate::storage::index::digest_at;
use crate::{Error, judge};

/// The result of a scrub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    pub contents_checked: usize,
    pub bytes_checked: u64,
    /// Corrupt; moved to quarantine.
    pub rotten: Vec<Digest>,
    /// Had a row in the index but no file.
    pub missing: Vec<Digest>,
}

/// How fast a scrub reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the disk allows.
    Full,
    BytesPerSec(u64),
}

enum Finding {
    Good,
    Rotten,
    Missing,
}

impl Storage {
    pub fn scrub(&self, pace: Pace) -> Result<Scrubbed, Error> {
        let digests: Vec<Digest> = self.index.read(|index| {
            let mut query = index.prepare("SELECT digest FROM contents ORDER BY digest")?;
            query.query_map([], |row| digest_at(row, 0))?.collect::<Result<_, rusqlite::Error>>()
        })?;
        let mut done = Scrubbed::default();
        for digest in digests {
            let (finding, bytes) = self.check(&digest, pace)?;
            done.contents_checked += 1;
            done.bytes_checked += bytes;
            if !matches!(finding, Finding::Good) {
                self.set_aside(&digest, &mut done)?;
            }
        }
        Ok(done)
    }

    fn check(&self, digest: &Digest, pace: Pace) -> Result<(Finding, u64), Error> {
        let file = match File::open(self.files.blob(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Finding::Missing, 0));
            }
            Err(error) => return Err(error.into()),
        };
        let mut hasher = Hasher::like(digest);
        let bytes = hash(Paced { file, pace, began: Instant::now(), read: 0 }, &mut hasher)?;
        let finding = if hasher.finish() == *digest { Finding::Good } else { Finding::Rotten };
        Ok((finding, bytes))
    }

    /// Sets content aside. Checks it again with the digest locked: a push may have replaced it with good bytes, or a
    /// collection may have removed it.
    fn set_aside(&self, digest: &Digest, done: &mut Scrubbed) -> Result<(), Error> {
        let _lock = self.locks.lock(digest);
        let (finding, _) = self.check(digest, Pace::Full)?;
        if let Finding::Good = finding {
            return Ok(());
        }
        let removed = self.index.write(|index| {
            let sql = "DELETE FROM contents WHERE digest = ?1";
            let removed = index.execute(sql, [digest.as_str()])?;
            judge::forget(index, digest)?;
            Ok::<_, rusqlite::Error>(removed)
        })?;
        if removed == 0 {
            return Ok(());
        }
        if let Finding::Rotten = finding {
            let place = self.files.quarantine(digest)?;
            tracing::error!(%digest, place = %place.display(), "registry: content has rotted");
            done.rotten.push(digest.clone());
        } else {
            tracing::error!(%digest, "registry: content has no file");
            done.missing.push(digest.clone());
        }
        Ok(())
    }
}

/// A reader that is limited to a pace.
struct Paced {
    file: File,
    pace: Pace,
    began: Instant,
    read: u64,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        if let Pace::BytesPerSec(rate) = self.pace {
            let due = Duration::from_millis(self.read.saturating_mul(1000) / rate.max(1));
            std::thread::sleep(due.saturating_sub(self.began.elapsed()));
        }
        Ok(count)
    }
}
