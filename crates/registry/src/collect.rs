// SPDX-License-Identifier: AGPL-3.0-or-later
//! Garbage collection. It runs while clients push and pull.
//!
//! ```text
//! idle uploads                        ─▶ removed
//! tags beyond keep-last-N             ─▶ removed
//! manifests that no tag reaches       ─▶ marked … not used for `untagged` ─▶ removed
//! blobs that no manifest needs        ─▶ marked … not used for `lease`    ─▶ removed from their repository
//! content of no repository, files without a row                           ─▶ removed
//! ```
//!
//! Marked content is still served. Telling a client that the content exists removes the mark, and the time starts
//! again. This is the lease that a client has between its HEAD, mount or upload and the push of its manifest. A
//! removal checks again in its own transaction: it keeps what has lost its mark, or has a new tag or parent manifest.
//! So a wrong mark does no harm.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use oci::{Digest, Repository};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::storage::Storage;
use crate::storage::files::ALGORITHMS;
use crate::storage::index::digest_at;
use crate::storage::manifests::remove_manifest;
use crate::{Error, judge};

/// Contents removed in one commit. Large enough for few commits, small enough that a push waits only briefly for a
/// digest.
const BATCH: usize = 64;

/// The result of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub uploads_removed: usize,
    pub tags_removed: usize,
    pub manifests_removed: usize,
    /// Blobs removed from a repository.
    pub blobs_removed: usize,
    /// Removed files, and their bytes.
    pub contents_removed: usize,
    pub bytes_freed: u64,
    /// Marked for removal by a later collection, unless a client asks for them before.
    pub manifests_marked: usize,
    pub blobs_marked: usize,
}

/// A manifest that no tag reaches.
struct Unreachable {
    repository: Repository,
    digest: Digest,
    /// When it was marked. Absent if this collection is the first to find it.
    since_ms: Option<i64>,
}

impl Storage {
    /// Runs a collection. `kept` are manifests that are needed although no tag reaches them.
    pub fn collect(&self, kept: &[(Repository, Digest)], now_ms: i64) -> Result<Collected, Error> {
        let Ok(_alone) = self.maintenance.try_write() else { return Err(Error::Maintained) };
        let now =
            SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
        let mut done = Collected {
            uploads_removed: self.sweep_uploads(self.policy.upload_idle, now)?,
            tags_removed: self.retain_tags()?,
            ..Collected::default()
        };
        let unreachable = self.index.read(|index| unreachable(index, kept))?;
        self.index.write(|index| {
            mark_and_remove_manifests(
                index,
                &unreachable,
                now_ms,
                before(now_ms, self.policy.untagged),
                &mut done,
            )?;
            mark_and_remove_blobs(index, now_ms, before(now_ms, self.policy.lease), &mut done)
        })?;
        self.remove_unowned(&mut done)?;
        self.remove_orphans(&mut done)?;
        self.index.write(judge::forget_removed)?;
        if done.tags_removed > 0 {
            self.export_layout()?;
        }
        Ok(done)
    }

    /// Moves the start times of leases by `by_ms`, by which the clock jumped. `now` is the time after the jump.
    pub fn follow_clock(&self, by_ms: i64, now: SystemTime) -> Result<(), Error> {
        self.index.write(|index| {
            for table in ["manifests", "blobs"] {
                index.execute(
                    &format!(
                        "UPDATE {table} SET unused_ms = unused_ms + ?1 WHERE unused_ms IS NOT NULL"
                    ),
                    [by_ms],
                )?;
            }
            Ok::<_, rusqlite::Error>(())
        })?;
        self.move_uploads(by_ms, now)
    }

    fn retain_tags(&self) -> Result<usize, Error> {
        if self.policy.keep_last.is_empty() {
            return Ok(0);
        }
        self.index.write(|index| {
            let mut query = index.prepare("SELECT DISTINCT repository FROM tags")?;
            let names: Vec<String> =
                query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut removed = 0;
            for name in names {
                let repository = name.parse::<Repository>().ok();
                let kept = repository.and_then(|repository| self.policy.tags_kept(&repository));
                let Some(kept) = kept else { continue };
                removed += index.execute(
                    "DELETE FROM tags WHERE repository = ?1 AND tag NOT IN (
                         SELECT tag FROM tags WHERE repository = ?1
                         ORDER BY moved_ms DESC, tag DESC LIMIT ?2)",
                    params![name, kept],
                )?;
            }
            Ok(removed)
        })
    }

    /// Removes content that is in no repository: its row and its file, while the digest is locked against pushes.
    fn remove_unowned(&self, done: &mut Collected) -> Result<(), Error> {
        let unowned: Vec<Digest> = self.index.read(|index| {
            let mut query =
                index.prepare(&format!("SELECT digest FROM contents WHERE {UNOWNED}"))?;
            query.query_map([], |row| digest_at(row, 0))?.collect::<Result<_, rusqlite::Error>>()
        })?;
        for batch in unowned.chunks(BATCH) {
            let _locks = self.locks.lock_all(batch.to_vec());
            let removed: Vec<(Digest, u64)> = self.index.write(|index| {
                let mut delete = index.prepare(&format!(
                    "DELETE FROM contents WHERE digest = ?1 AND {UNOWNED} RETURNING size"
                ))?;
                let mut removed = Vec::new();
                for digest in batch {
                    let size = delete.query_row([digest.as_str()], |row| row.get(0)).optional()?;
                    removed.extend(size.map(|size| (digest.clone(), size)));
                }
                Ok::<_, rusqlite::Error>(removed)
            })?;
            for (digest, size) in removed {
                self.files.remove(&digest)?;
                done.contents_removed += 1;
                done.bytes_freed += size;
            }
        }
        Ok(())
    }

    /// Removes files that a crash left between rename and commit, or between commit and unlink.
    fn remove_orphans(&self, done: &mut Collected) -> Result<(), Error> {
        let is_known = |digest: &Digest| {
            self.index.read(|index| {
                let sql = "SELECT EXISTS (SELECT 1 FROM contents WHERE digest = ?1)";
                index.query_row(sql, [digest.as_str()], |row| row.get::<_, bool>(0))
            })
        };
        for algorithm in ALGORITHMS {
            for digest in self.files.digests(algorithm)? {
                if is_known(&digest)? {
                    continue;
                }
                // A push that is between its rename and its commit holds the lock.
                let _lock = self.locks.lock(&digest);
                if !is_known(&digest)? {
                    self.files.remove(&digest)?;
                    done.contents_removed += 1;
                }
            }
            self.files.sync_blobs(algorithm)?;
        }
        Ok(())
    }
}

const UNOWNED: &str = "NOT EXISTS (SELECT 1 FROM blobs WHERE blobs.digest = contents.digest)
     AND NOT EXISTS (SELECT 1 FROM manifests WHERE manifests.digest = contents.digest)";

fn before(now_ms: i64, age: Duration) -> i64 {
    now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Manifests that no tag reaches, in one snapshot of the index. Reachability goes down from an index to its
/// manifests, and from a subject to its referrers.
fn unreachable(
    index: &Transaction,
    kept: &[(Repository, Digest)],
) -> Result<Vec<Unreachable>, Error> {
    let mut names = index.prepare("SELECT DISTINCT repository FROM manifests")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for name in names {
        let Ok(repository) = name.parse::<Repository>() else { continue };
        let mut open: Vec<Digest> = kept
            .iter()
            .filter(|(owner, _)| *owner == repository)
            .map(|(_, digest)| digest.clone())
            .collect();
        let mut tags = index.prepare_cached("SELECT digest FROM tags WHERE repository = ?1")?;
        for digest in tags.query_map([&name], |row| digest_at(row, 0))? {
            open.push(digest?);
        }
        // From a manifest to the manifests that are kept because of it.
        let mut keeps: HashMap<Digest, Vec<Digest>> = HashMap::new();
        let mut edges = index.prepare_cached(
            "SELECT manifest, part FROM parts WHERE repository = ?1 AND is_manifest
             UNION ALL
             SELECT subject, digest FROM manifests WHERE repository = ?1 AND subject IS NOT NULL",
        )?;
        for edge in edges.query_map([&name], |row| Ok((digest_at(row, 0)?, digest_at(row, 1)?)))? {
            let (from, to) = edge?;
            keeps.entry(from).or_default().push(to);
        }
        let mut reached = HashSet::new();
        while let Some(digest) = open.pop() {
            if reached.insert(digest.clone()) {
                open.extend(keeps.remove(&digest).unwrap_or_default());
            }
        }
        let mut all = index
            .prepare_cached("SELECT digest, unused_ms FROM manifests WHERE repository = ?1")?;
        for row in all.query_map([&name], |row| Ok((digest_at(row, 0)?, row.get(1)?)))? {
            let (digest, since_ms) = row?;
            if !reached.contains(&digest) {
                found.push(Unreachable { repository: repository.clone(), digest, since_ms });
            }
        }
    }
    Ok(found)
}

fn mark_and_remove_manifests(
    index: &Transaction,
    unreachable: &[Unreachable],
    now_ms: i64,
    cutoff_ms: i64,
    done: &mut Collected,
) -> Result<(), Error> {
    // A manifest that has a tag again loses its mark.
    index.execute(
        "UPDATE manifests SET unused_ms = NULL WHERE unused_ms IS NOT NULL AND EXISTS (
             SELECT 1 FROM tags
             WHERE tags.repository = manifests.repository AND tags.digest = manifests.digest)",
        [],
    )?;
    let mut mark = index.prepare(
        "UPDATE manifests SET unused_ms = ?3
         WHERE repository = ?1 AND digest = ?2 AND unused_ms IS NULL",
    )?;
    let mut may_go = index.prepare(
        "SELECT 1 FROM manifests AS it
         WHERE repository = ?1 AND digest = ?2 AND unused_ms = ?3
           AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.repository = ?1 AND tags.digest = ?2)
           AND NOT EXISTS (SELECT 1 FROM parts
                           WHERE parts.repository = ?1 AND part = ?2 AND is_manifest)
           AND NOT EXISTS (SELECT 1 FROM manifests AS above
                           WHERE above.repository = ?1 AND above.digest = it.subject)",
    )?;
    for item in unreachable.iter().filter(|item| item.since_ms.is_none()) {
        let key = params![item.repository.as_str(), item.digest.as_str(), now_ms];
        done.manifests_marked += mark.execute(key)?;
    }
    let mut expired: HashMap<(&Repository, &Digest), &Unreachable> = unreachable
        .iter()
        .filter(|item| item.since_ms.is_some_and(|since| since <= cutoff_ms))
        .map(|item| ((&item.repository, &item.digest), item))
        .collect();
    let mut below = index.prepare(
        "SELECT part FROM parts WHERE repository = ?1 AND manifest = ?2 AND is_manifest
         UNION SELECT digest FROM manifests WHERE repository = ?1 AND subject = ?2",
    )?;
    // An index is removed before its manifests, a subject before its referrers. After each removal, only the
    // manifests directly below it are checked again.
    let mut open: Vec<&Unreachable> = expired.values().copied().collect();
    while let Some(item) = open.pop() {
        let key = params![item.repository.as_str(), item.digest.as_str(), item.since_ms];
        if !expired.contains_key(&(&item.repository, &item.digest)) || !may_go.exists(key)? {
            continue;
        }
        let key = params![item.repository.as_str(), item.digest.as_str()];
        let waited: Vec<Digest> =
            below.query_map(key, |row| digest_at(row, 0))?.collect::<Result<_, _>>()?;
        done.manifests_removed += remove_manifest(index, &item.repository, &item.digest)?;
        expired.remove(&(&item.repository, &item.digest));
        let waited = waited.iter().filter_map(|digest| expired.get(&(&item.repository, digest)));
        open.extend(waited.copied().collect::<Vec<_>>());
    }
    Ok(())
}

fn mark_and_remove_blobs(
    index: &Transaction,
    now_ms: i64,
    cutoff_ms: i64,
    done: &mut Collected,
) -> Result<(), Error> {
    const IN_USE: &str = "EXISTS (SELECT 1 FROM parts WHERE parts.repository = blobs.repository
                                  AND part = blobs.digest AND NOT is_manifest)";
    let unmark =
        format!("UPDATE blobs SET unused_ms = NULL WHERE unused_ms IS NOT NULL AND {IN_USE}");
    index.execute(&unmark, [])?;
    let remove = format!("DELETE FROM blobs WHERE unused_ms <= ?1 AND NOT {IN_USE}");
    done.blobs_removed = index.execute(&remove, [cutoff_ms])?;
    let mark = format!("UPDATE blobs SET unused_ms = ?1 WHERE unused_ms IS NULL AND NOT {IN_USE}");
    done.blobs_marked = index.execute(&mark, [now_ms])?;
    Ok(())
}
