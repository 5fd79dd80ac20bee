// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tokens of publishers: opaque, for repositories below prefixes, until a day. Stored as hashes; the
//! token itself is shown once. Looked up with every request, so that a revoked one is dead at once.

use oci::Digest;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::access::{Access, Grant};
use crate::policy::{InvalidPrefix, Prefix};
use crate::storage::Storage;
use crate::{Error, now_ms};

/// Begins every token, so that scanners find one that was published by mistake.
const BEGINNING: &str = "shp_publisher_";
const NAME_BYTES_MAX: usize = 64;

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRights {
    /// What it is called in lists and in the audit log.
    pub name: String,
    /// Prefixes as they are written; see [`Prefix`].
    #[serde(default)]
    pub pull: Vec<String>,
    #[serde(default)]
    pub push: Vec<String>,
    pub expires_ms: i64,
}

impl Storage {
    /// Makes a token; its text is not kept.
    pub fn create_token(&self, rights: &TokenRights) -> Result<String, Error> {
        let is_printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if rights.name.is_empty()
            || rights.name.len() > NAME_BYTES_MAX
            || !is_printable(&rights.name)
        {
            let message = format!("a token's name has 1 to {NAME_BYTES_MAX} printable characters");
            return Err(Error::Token(message));
        }
        // Parsed for the answer now; parsed again when it is used.
        grant(rights).map_err(|error| Error::Token(error.to_string()))?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| std::io::Error::other(error.to_string()))?;
        let token = format!("{BEGINNING}{}", hex::encode(secret));
        let rights_json = serde_json::to_string(rights).map_err(std::io::Error::other)?;
        let sql = "INSERT OR IGNORE INTO tokens VALUES (?1, ?2, ?3)";
        let hash = Digest::of(token.as_bytes());
        let key = params![rights.name, hash.as_str(), rights_json];
        match self.index.write(|index| index.execute(sql, key))? {
            0 => Err(Error::Token(format!("there is a token {:?} already", rights.name))),
            _ => Ok(token),
        }
    }

    pub fn tokens(&self) -> Result<Vec<TokenRights>, Error> {
        self.index.read(|index| {
            let mut query = index.prepare("SELECT rights FROM tokens ORDER BY name")?;
            let rows = query.query_map([], |row| row.get::<_, String>(0))?;
            let texts: Vec<String> = rows.collect::<Result<_, _>>()?;
            Ok(texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
        })
    }

    /// Whether there was such a token.
    pub fn revoke_token(&self, name: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM tokens WHERE name = ?1";
        Ok(self.index.write(|index| index.execute(sql, [name]))? > 0)
    }

    /// Whose token this is, and what that lets them do now.
    pub fn access_of(&self, token: &str) -> Result<Option<Access>, Error> {
        if !token.starts_with(BEGINNING) {
            return Ok(None);
        }
        // The hash of 256 random bits tells nothing, also by the time of its comparison.
        let hash = Digest::of(token.as_bytes());
        let rights: Option<String> = self.index.read(|index| {
            let mut query = index.prepare_cached("SELECT rights FROM tokens WHERE hash = ?1")?;
            query.query_row([hash.as_str()], |row| row.get(0)).optional()
        })?;
        let rights = rights.and_then(|text| serde_json::from_str::<TokenRights>(&text).ok());
        Ok(rights.filter(|rights| now_ms() < rights.expires_ms).and_then(|rights| {
            let grant = grant(&rights).ok()?;
            Some(Access { who: format!("publisher {}", rights.name), grant })
        }))
    }
}

fn grant(rights: &TokenRights) -> Result<Grant, InvalidPrefix> {
    let parse = |texts: &[String]| {
        texts.iter().map(|text| text.parse()).collect::<Result<Vec<Prefix>, _>>()
    };
    Ok(Grant::Prefixes { pull: parse(&rights.pull)?, push: parse(&rights.push)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    #[test]
    fn a_token_is_good_until_its_day_or_its_revocation() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path(), Policy::default()).unwrap();
        let rights = |name: &str, expires_ms| TokenRights {
            name: name.into(),
            pull: vec!["*".into()],
            push: vec!["ci/".into()],
            expires_ms,
        };
        let token = storage.create_token(&rights("ci", i64::MAX)).unwrap();
        let old = storage.create_token(&rights("old", 0)).unwrap();
        assert!(matches!(storage.create_token(&rights("ci", 1)), Err(Error::Token(_))));
        assert!(matches!(storage.create_token(&rights("", 1)), Err(Error::Token(_))));
        let wrong = TokenRights { push: vec!["../".into()], ..rights("wrong", 1) };
        assert!(matches!(storage.create_token(&wrong), Err(Error::Token(_))));
        assert_eq!(storage.tokens().unwrap(), [rights("ci", i64::MAX), rights("old", 0)]);

        let access = storage.access_of(&token).unwrap().unwrap();
        assert_eq!(access.who, "publisher ci");
        let (ci, other) = ("ci/app".parse().unwrap(), "other".parse().unwrap());
        assert!(access.may_push(&ci) && access.may_pull(&other) && !access.may_push(&other));
        assert!(!access.may_administer());
        for text in [old.as_str(), &token[..token.len() - 1], "", "shp_publisher_", "ci"] {
            assert!(storage.access_of(text).unwrap().is_none(), "{text}");
        }
        // The secret is in no file.
        let database = std::fs::read(dir.path().join("registry.sqlite-wal")).unwrap();
        let secret = &token.as_bytes()[BEGINNING.len()..];
        assert!(!database.windows(secret.len()).any(|window| window == secret));
        assert!(storage.revoke_token("ci").unwrap() && !storage.revoke_token("ci").unwrap());
        assert!(storage.access_of(&token).unwrap().is_none());
    }
}
