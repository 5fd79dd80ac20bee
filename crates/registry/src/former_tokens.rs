// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tokens of publishers as format 1 of the index has them. The registry has none any more: who asks is the
//! host's to find out. So the host takes these over, and then lets them be forgotten; both may happen again.

use oci::Digest;
use rusqlite::Connection;
use serde::Deserialize;

use crate::Error;
use crate::storage::Storage;

/// A token without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerToken {
    /// Of its text, in hex.
    pub sha256: String,
    pub rights: FormerRights,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FormerRights {
    pub name: String,
    /// Prefixes of repositories.
    #[serde(default)]
    pub pull: Vec<String>,
    #[serde(default)]
    pub push: Vec<String>,
    pub expires_ms: i64,
}

impl Storage {
    /// What the index of an older program had; none in a new one.
    pub fn former_tokens(&self) -> Result<Vec<FormerToken>, Error> {
        self.index.read(|index| {
            if !has_former(index)? {
                return Ok(Vec::new());
            }
            let mut query =
                index.prepare("SELECT hash, rights FROM former_tokens ORDER BY name")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
            Ok(rows.iter().filter_map(|(hash, rights)| former(hash, rights)).collect())
        })
    }

    pub fn forget_former_tokens(&self) -> Result<(), Error> {
        if self.index.read(|index| has_former(index))? {
            self.index.write(|index| index.execute_batch("DROP TABLE IF EXISTS former_tokens"))?;
        }
        Ok(())
    }
}

fn has_former(index: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'former_tokens')";
    index.query_row(sql, [], |row| row.get(0))
}

/// A row that cannot be read opened nothing before either.
fn former(hash: &str, rights: &str) -> Option<FormerToken> {
    let sha256 = hash.parse::<Digest>().ok()?.hex().to_owned();
    Some(FormerToken { sha256, rights: serde_json::from_str(rights).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    /// An index of format 1 with one token more than can be read.
    const FORMAT_1: &str = "
        CREATE TABLE tokens (
            name TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, rights TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        DROP TABLE verdicts;
        DROP TABLE judged_layers;
        INSERT INTO tokens VALUES
            ('ci', 'sha256:aa00000000000000000000000000000000000000000000000000000000000000',
             '{\"name\":\"ci\",\"pull\":[],\"push\":[\"ci/\"],\"expires_ms\":7}'),
            ('broken', 'sha256:bb00000000000000000000000000000000000000000000000000000000000000', '{');
        ALTER TABLE manifests ADD COLUMN annotations TEXT NOT NULL DEFAULT '{}';
        PRAGMA user_version = 1;
    ";

    #[test]
    fn tokens_of_an_older_index_are_handed_over_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Storage::open(dir.path(), Policy::default()).unwrap();
        assert_eq!(open().former_tokens().unwrap(), []);
        let index = Connection::open(dir.path().join("registry.sqlite")).unwrap();
        index.execute_batch(FORMAT_1).unwrap();
        drop(index);
        let rights = FormerRights {
            name: "ci".into(),
            pull: Vec::new(),
            push: vec!["ci/".into()],
            expires_ms: 7,
        };
        let expected = [FormerToken { sha256: format!("aa{}", "0".repeat(62)), rights }];
        // Also when the host died before it took them.
        for _ in 0..2 {
            assert_eq!(open().former_tokens().unwrap(), expected);
        }
        for _ in 0..2 {
            let storage = open();
            storage.forget_former_tokens().unwrap();
            assert_eq!(storage.former_tokens().unwrap(), []);
        }
    }
}
