// SPDX-License-Identifier: AGPL-3.0-or-later
//! Judging: whether an artifact can be installed as a root filesystem on the machines that the maintenance OS boots.
//!
//! ```text
//! push ─▶ manifest, artifact and media types ─▶ platform ─▶ each layer, once, to its last byte ─▶ verdict
//! ```
//!
//! A verdict never refuses a push, because one registry holds all kinds of content. The rules are those of the crate
//! `oci`, which the machine applies too. Manifests are judged one at a time, in the background. A layer is read once
//! for all manifests that share it. Memory is one decoder's window (zstd: 128 MiB at most), and time is limited. A
//! verdict that is lost with the process is determined again by the next request for it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oci::layer::check_whole;
use oci::{
    Descriptor, Digest, Hasher, Manifest, ManifestKind, Platform, Repository, TagOrDigest,
    installable,
};
use rusqlite::{OptionalExtension, Transaction, params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;
use crate::storage::Storage;
use crate::storage::files::hash;
use crate::storage::index::digest_at;

/// Raised with every change of the rules in `oci`: verdicts by older rules are determined anew.
const RULES: i64 = 1;
/// Longest time for reading one layer: 60 GB at 100 MB/s, a slow disk.
const LAYER_TIME_MAX: Duration = Duration::from_secs(600);
/// A configuration (image-spec, config.md) has a few KiB; its history may be long.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Longest reason that is stored.
const WORDS_MAX: usize = 500;
/// Most pushes that wait to be judged. Others are judged when their verdict is requested, or by the daily run.
const PUSHES_MAX: usize = 256;
/// Bytes of a layer that are read at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Whether an artifact can be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Installable,
    /// It cannot be installed, with the reason.
    Refused(String),
    /// It could not be determined, with the reason.
    Unknown(String),
}

/// The queue of manifests to judge: one at a time, until the registry shuts down.
#[derive(Clone)]
pub struct Judging {
    turns: Arc<Semaphore>,
    /// Limits the queued pushes, whose verdict no caller waits for.
    places: Arc<Semaphore>,
    pub is_over: Arc<AtomicBool>,
}

impl Default for Judging {
    fn default() -> Judging {
        Judging {
            turns: Arc::new(Semaphore::new(1)),
            places: Arc::new(Semaphore::new(PUSHES_MAX)),
            is_over: Arc::default(),
        }
    }
}

impl Judging {
    /// A place in the queue for a pushed manifest. `None` if the queue is full.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Waits for the turn to judge. `None` after the registry has shut down.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok()
    }

    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.turns.close();
    }
}

impl Storage {
    pub fn verdict(&self, digest: &Digest) -> Result<Option<Verdict>, Error> {
        let sql = "SELECT refused, unknown FROM verdicts WHERE digest = ?1 AND rules = ?2";
        self.index.read(|index| {
            let mut query = index.prepare_cached(sql)?;
            Ok(query.query_row(params![digest.as_str(), RULES], verdict_at).optional()?)
        })
    }

    /// Manifests with a tag that have no verdict.
    pub fn unjudged(&self) -> Result<Vec<(Repository, Digest)>, Error> {
        self.index.read(|index| {
            let mut query = index.prepare(
                "SELECT DISTINCT repository, digest FROM tags
                 WHERE digest NOT IN (SELECT digest FROM verdicts WHERE rules = ?1)",
            )?;
            let rows = query
                .query_map([RULES], |row| Ok((row.get::<_, String>(0)?, digest_at(row, 1)?)))?;
            let mut found = Vec::new();
            for row in rows {
                let (repository, digest) = row?;
                found.extend(repository.parse().ok().map(|repository| (repository, digest)));
            }
            Ok(found)
        })
    }

    /// The verdict on a manifest or an index. It is stored, unless a later attempt may come to another verdict.
    pub fn judge(
        &self,
        repository: &Repository,
        digest: &Digest,
        stop: &AtomicBool,
    ) -> Result<Verdict, Error> {
        if let Some(verdict) = self.verdict(digest)? {
            return Ok(verdict);
        }
        let judgement = self.judge_manifest(repository, digest, stop)?;
        if judgement.is_lasting {
            self.index.write(|index| {
                let (refused, unknown) = words(&judgement.verdict);
                index.execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?1, ?2, ?3, ?4)",
                    params![digest.as_str(), RULES, refused, unknown],
                )
            })?;
        }
        Ok(judgement.verdict)
    }

    fn judge_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        stop: &AtomicBool,
    ) -> Result<Judgement, Error> {
        let stored = match self.find_manifest(repository, &TagOrDigest::Digest(digest.clone())) {
            Err(Error::ManifestUnknown(..)) => {
                return Ok(Judgement::for_now(format!("{repository} has no {digest}")));
            }
            found => found?,
        };
        let bytes = self.manifest_bytes(digest)?;
        let manifest = Manifest::parse(&bytes, &stored.media_type)
            .map_err(|error| Error::ManifestInvalid(error.to_string()))?;
        match manifest.kind() {
            ManifestKind::Image => self.judge_image(&manifest, stop),
            ManifestKind::Index => {
                let chosen = match Platform::MACHINES.choose(&bytes, &manifest) {
                    Ok(chosen) => &chosen.digest,
                    Err(why) => return Ok(Judgement::refused(why.0)),
                };
                let reference = TagOrDigest::Digest(chosen.clone());
                let is_image = match self.find_manifest(repository, &reference) {
                    Ok(found) => self.is_image(&found)?,
                    Err(Error::ManifestUnknown(..)) => {
                        return Ok(Judgement::for_now(format!("{repository} has no {chosen}")));
                    }
                    Err(error) => return Err(error),
                };
                if !is_image {
                    return Ok(Judgement::refused(format!("{chosen} is an index inside an index")));
                }
                let verdict = self.judge(repository, chosen, stop)?;
                let is_lasting = self.verdict(chosen)?.is_some();
                Ok(Judgement { verdict, is_lasting })
            }
        }
    }

    fn is_image(&self, stored: &crate::Stored) -> Result<bool, Error> {
        let bytes = self.manifest_bytes(&stored.digest)?;
        let manifest = Manifest::parse(&bytes, &stored.media_type);
        Ok(manifest.is_ok_and(|manifest| manifest.kind() == ManifestKind::Image))
    }

    /// Checks manifest and configuration first, so that no layer of an image for another machine is read.
    fn judge_image(&self, manifest: &Manifest, stop: &AtomicBool) -> Result<Judgement, Error> {
        if let Err(why) = installable::check_manifest(manifest) {
            return Ok(Judgement::refused(why.0));
        }
        if let Some(config) = installable::platform_config(manifest) {
            if config.size > CONFIG_BYTES_MAX {
                let why = format!(
                    "the image's configuration has {} bytes, at most {CONFIG_BYTES_MAX} are read",
                    config.size
                );
                return Ok(Judgement::refused(why));
            }
            let bytes = std::fs::read(self.files.blob(&config.digest))?;
            if let Err(why) = Platform::MACHINES.check_config(&bytes) {
                return Ok(Judgement::refused(why.0));
            }
        }
        let mut unknown = None;
        for layer in &manifest.layers {
            let Judgement { verdict, is_lasting } = self.judge_layer(layer, stop)?;
            let of_layer = |why: &str| format!("layer {}: {why}", layer.digest);
            match verdict {
                Verdict::Installable => {}
                // The remaining layers cannot change this verdict.
                Verdict::Refused(why) => {
                    return Ok(Judgement { verdict: Verdict::Refused(of_layer(&why)), is_lasting });
                }
                Verdict::Unknown(why) => {
                    let verdict = Verdict::Unknown(of_layer(&why));
                    unknown.get_or_insert(Judgement { verdict, is_lasting });
                }
            }
        }
        Ok(unknown.unwrap_or(Judgement { verdict: Verdict::Installable, is_lasting: true }))
    }

    fn judge_layer(&self, layer: &Descriptor, stop: &AtomicBool) -> Result<Judgement, Error> {
        let key = params![layer.digest.as_str(), layer.media_type, RULES];
        let known = self.index.read(|index| {
            let sql = "SELECT refused, unknown FROM judged_layers
                       WHERE digest = ?1 AND media_type = ?2 AND rules = ?3";
            index.query_row(sql, key, verdict_at).optional()
        })?;
        if let Some(verdict) = known {
            return Ok(Judgement { verdict, is_lasting: true });
        }
        let judgement = self.read_layer(layer, stop)?;
        if judgement.is_lasting {
            self.index.write(|index| {
                let (refused, unknown) = words(&judgement.verdict);
                index.execute(
                    "INSERT OR REPLACE INTO judged_layers VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![layer.digest.as_str(), layer.media_type, RULES, refused, unknown],
                )
            })?;
        }
        Ok(judgement)
    }

    fn read_layer(&self, layer: &Descriptor, stop: &AtomicBool) -> Result<Judgement, Error> {
        let file = match File::open(self.files.blob(&layer.digest)) {
            // A non-distributable layer, or collected in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Judgement::for_now("it is not in this registry".into()));
            }
            file => file?,
        };
        let mut watched = Watched { file, stop, began: Instant::now(), ended: None };
        let outcome = {
            let reader = BufReader::with_capacity(BUFFER_BYTES, &mut watched);
            check_whole(reader, layer)
        };
        match (watched.ended, outcome) {
            (Some(Ended::Stopped), _) => Ok(Judgement::for_now("the registry ended".into())),
            (Some(Ended::TooLong), _) => Ok(Judgement {
                verdict: Verdict::Unknown(format!(
                    "it was not read to its end within {} s",
                    LAYER_TIME_MAX.as_secs()
                )),
                is_lasting: true,
            }),
            (Some(Ended::Failed(error)), _) => Err(error.into()),
            (None, Ok(())) => Ok(Judgement { verdict: Verdict::Installable, is_lasting: true }),
            (None, Err(why)) => {
                // If the file is corrupt on this disk, the finding does not apply to the pushed content.
                let mut hasher = Hasher::like(&layer.digest);
                hash(File::open(self.files.blob(&layer.digest))?, &mut hasher)?;
                match hasher.finish() == layer.digest {
                    true => Ok(Judgement::refused(why.0)),
                    false => Ok(Judgement::for_now("its file has rotted; push it again".into())),
                }
            }
        }
    }
}

/// A verdict, and whether a later attempt would come to the same one.
struct Judgement {
    verdict: Verdict,
    is_lasting: bool,
}

impl Judgement {
    fn refused(why: String) -> Judgement {
        Judgement { verdict: Verdict::Refused(bounded(&why)), is_lasting: true }
    }

    fn for_now(why: String) -> Judgement {
        Judgement { verdict: Verdict::Unknown(why), is_lasting: false }
    }
}

fn bounded(words: &str) -> String {
    words.chars().take(WORDS_MAX).collect()
}

fn words(verdict: &Verdict) -> (Option<&str>, Option<&str>) {
    match verdict {
        Verdict::Installable => (None, None),
        Verdict::Refused(why) => (Some(why), None),
        Verdict::Unknown(why) => (None, Some(why)),
    }
}

fn verdict_at(row: &rusqlite::Row) -> rusqlite::Result<Verdict> {
    Ok(match (row.get(0)?, row.get(1)?) {
        (Some(why), _) => Verdict::Refused(why),
        (None, Some(why)) => Verdict::Unknown(why),
        (None, None) => Verdict::Installable,
    })
}

/// Deletes the findings on corrupt content. Deletes all verdicts, since any of them may depend on it.
pub fn forget(index: &Transaction, digest: &Digest) -> rusqlite::Result<()> {
    index.execute("DELETE FROM judged_layers WHERE digest = ?1", [digest.as_str()])?;
    index.execute("DELETE FROM verdicts", [])?;
    Ok(())
}

/// Deletes verdicts on content that was removed.
pub fn forget_removed(index: &Transaction) -> rusqlite::Result<()> {
    for table in ["judged_layers", "verdicts"] {
        let sql = format!("DELETE FROM {table} WHERE digest NOT IN (SELECT digest FROM contents)");
        index.execute(&sql, [])?;
    }
    Ok(())
}

/// Why a layer was not read to its end, for reasons that are not the layer's fault.
enum Ended {
    Stopped,
    TooLong,
    Failed(io::Error),
}

/// A file whose reads fail once they take too long or the registry shuts down.
struct Watched<'a> {
    file: File,
    stop: &'a AtomicBool,
    began: Instant,
    ended: Option<Ended>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ended = if self.stop.load(Ordering::Acquire) {
            Ended::Stopped
        } else if self.began.elapsed() > LAYER_TIME_MAX {
            Ended::TooLong
        } else {
            match self.file.read(buffer) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => Ended::Failed(error),
                other => return other,
            }
        };
        self.ended = Some(ended);
        Err(io::Error::other("the layer is not read to its end"))
    }
}
