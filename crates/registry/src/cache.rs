// SPDX-License-Identifier: AGPL-3.0-or-later
//! A cache of recently read manifests, which saves a query to the index. An entry is valid until anything is written
//! to the index. So no deletion, tag change or lease can be missed, and there is no rule for invalidation that could
//! be wrong. The caller's rights are checked before the cache is read. An entry belongs to one repository.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use axum::body::Bytes;
use oci::{Repository, TagOrDigest};

use crate::storage::Stored;

/// Most bytes of all entries together. When it is exceeded, the cache is emptied.
const BYTES_MAX: usize = 8 << 20;
/// Estimated memory of an entry in addition to the manifest's bytes.
const ENTRY_BYTES: usize = 512;

#[derive(Default)]
pub struct ManifestCache(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    by_name: HashMap<String, Entry>,
    bytes: usize,
}

struct Entry {
    /// The index's write count when this was read.
    written: u64,
    manifest: (Stored, Bytes),
}

impl ManifestCache {
    /// The manifest, if nothing was written to the index since it was cached.
    pub fn get(
        &self,
        repository: &Repository,
        reference: &TagOrDigest,
        written: u64,
    ) -> Option<(Stored, Bytes)> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.by_name.get(&key(repository, reference))?;
        (entry.written == written).then(|| entry.manifest.clone())
    }

    /// Caches a manifest that was read when the index's write count was `written`.
    pub fn keep(
        &self,
        repository: &Repository,
        reference: &TagOrDigest,
        written: u64,
        manifest: (Stored, Bytes),
    ) {
        let cost = manifest.1.len() + ENTRY_BYTES;
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if entries.bytes + cost > BYTES_MAX {
            *entries = Entries::default();
        }
        if cost <= BYTES_MAX {
            let entry = Entry { written, manifest };
            let former = entries.by_name.insert(key(repository, reference), entry);
            entries.bytes += cost;
            entries.bytes -= former.map_or(0, |former| former.manifest.1.len() + ENTRY_BYTES);
        }
    }
}

/// Unambiguous: a repository's name contains neither `:` nor `@`.
fn key(repository: &Repository, reference: &TagOrDigest) -> String {
    match reference {
        TagOrDigest::Tag(tag) => format!("{repository}:{tag}"),
        TagOrDigest::Digest(digest) => format!("{repository}@{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_with_the_next_write_and_memory_is_bounded() {
        let cache = ManifestCache::default();
        let repository: Repository = "a".parse().unwrap();
        let stored =
            Stored { digest: oci::Digest::of(b""), media_type: "x/y".into(), size: 3 << 20 };
        let manifest = (stored, Bytes::from(vec![0; 3 << 20]));
        let name = |number: u64| format!("v{number}").parse::<TagOrDigest>().unwrap();
        for number in 0..20 {
            cache.keep(&repository, &name(number), 7, manifest.clone());
            assert!(cache.0.read().unwrap().bytes <= BYTES_MAX);
            assert!(cache.get(&repository, &name(number), 7).is_some());
            assert!(cache.get(&repository, &name(number), 8).is_none());
        }
        assert!(cache.get(&"b".parse().unwrap(), &name(19), 7).is_none());
    }
}
