// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of tokens. Rows of expired and revoked tokens stay: the audit log refers to them.

use api::access::Role;
use rusqlite::{OptionalExtension, Row, params};

use super::{Db, Error, Store};

/// A use is recorded if the last recorded one is older than this: a request that only reads need not wait for a disk.
const USE_NOTED_EVERY_MS: i64 = 60_000;

/// A token without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: String,
    pub role: Role,
    pub name: String,
    /// SHA-256 of the text.
    pub hash: Vec<u8>,
    pub pull: Vec<String>,
    pub push: Vec<String>,
    pub created_at: i64,
    pub expires_at: i64,
    pub last_used_at: Option<i64>,
    pub revoked_at: Option<i64>,
}

impl TokenRow {
    /// Whether the token is neither revoked nor expired.
    pub fn is_good(&self, now: i64) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }

    /// Whether this use should be recorded.
    pub fn is_use_news(&self, now: i64) -> bool {
        self.last_used_at.is_none_or(|noted| now - noted >= USE_NOTED_EVERY_MS)
    }
}

const SELECT: &str = "SELECT id, role, name, hash, pull, push, created_at, expires_at, last_used_at, \
    revoked_at FROM tokens";

fn token(row: &Row) -> Result<TokenRow, Error> {
    let role: String = row.get(1)?;
    let list = |column| -> Result<Vec<String>, Error> {
        Ok(serde_json::from_str(&row.get::<_, String>(column)?)?)
    };
    Ok(TokenRow {
        id: row.get(0)?,
        role: serde_json::from_value(role.into())?,
        name: row.get(2)?,
        hash: row.get(3)?,
        pull: list(4)?,
        push: list(5)?,
        created_at: row.get(6)?,
        expires_at: row.get(7)?,
        last_used_at: row.get(8)?,
        revoked_at: row.get(9)?,
    })
}

fn insert(db: &Db, new: &TokenRow) -> Result<(), Error> {
    let (pull, push) = (serde_json::to_string(&new.pull)?, serde_json::to_string(&new.push)?);
    let columns = "id, role, name, hash, pull, push, created_at, expires_at";
    db.execute(
        &format!("INSERT INTO tokens ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        params![
            new.id,
            new.role.as_str(),
            new.name,
            new.hash,
            pull,
            push,
            new.created_at,
            new.expires_at
        ],
    )?;
    Ok(())
}

impl Store {
    pub async fn create_token(&self, new: TokenRow) -> Result<(), Error> {
        self.write(move |db| insert(db, &new)).await
    }

    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, Error> {
        self.look_up(|db| {
            let mut query = db.prepare(&format!("{SELECT} WHERE id = ?1"))?;
            query.query_row([id], |row| Ok(token(row))).optional()?.transpose()
        })
        .await
    }

    /// Returns all tokens, newest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Error> {
        self.read(|db| {
            let mut query = db.prepare(&format!("{SELECT} ORDER BY created_at DESC, id"))?;
            let rows = query.query_map([], |row| Ok(token(row)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().collect()
        })
        .await
    }

    pub async fn token_used(&self, id: &str, now: i64) -> Result<(), Error> {
        let id = id.to_owned();
        self.write(move |db| {
            db.execute("UPDATE tokens SET last_used_at = ?2 WHERE id = ?1", params![id, now])?;
            Ok(())
        })
        .await
    }

    /// Revokes a token. If it is revoked already, it keeps its time.
    pub async fn revoke_token(&self, id: &str, now: i64) -> Result<(), Error> {
        let id = id.to_owned();
        self.write(move |db| {
            let sql = "UPDATE tokens SET revoked_at = COALESCE(revoked_at, ?2) WHERE id = ?1";
            match db.execute(sql, params![id, now])? {
                0 => Err(Error::NotFound { what: "token", id }),
                _ => Ok(()),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::rows::at_once;

    fn made(id: &str, created_at: i64) -> TokenRow {
        TokenRow {
            id: id.into(),
            role: Role::Publisher,
            name: format!("name of {id}"),
            hash: vec![1, 2, 3],
            pull: vec!["os-images/".into()],
            push: vec!["ci/".into(), "tools/".into()],
            created_at,
            expires_at: 1_000,
            last_used_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn a_token_is_good_until_its_end_or_until_it_is_revoked() {
        let (open, revoked) = (made("a", 0), TokenRow { revoked_at: Some(500), ..made("a", 0) });
        for (now, is_good) in [(0, true), (999, true), (1_000, false), (1_001, false)] {
            assert_eq!((open.is_good(now), revoked.is_good(now)), (is_good, false), "at {now}");
        }
    }

    #[test]
    fn a_use_is_news_once_a_minute() {
        let used = TokenRow { last_used_at: Some(5_000), ..made("a", 0) };
        for (now, is_news) in [(5_000, false), (64_999, false), (65_000, true), (70_000, true)] {
            assert_eq!(used.is_use_news(now), is_news, "at {now}");
        }
        assert!(made("a", 0).is_use_news(0), "the first one");
    }

    #[test]
    fn what_happens_to_one_token_happens_to_no_other() {
        let store = Store::in_memory().unwrap();
        for (id, created_at) in [("a", 1), ("c", 3), ("b", 2)] {
            at_once(store.create_token(made(id, created_at))).unwrap();
        }
        at_once(store.token_used("a", 70)).unwrap();
        at_once(store.revoke_token("b", 80)).unwrap();
        at_once(store.revoke_token("b", 90)).unwrap();
        let unknown = at_once(store.revoke_token("d", 80)).unwrap_err();
        assert!(matches!(unknown, Error::NotFound { what: "token", .. }), "{unknown}");
        let expected = [
            made("c", 3),
            TokenRow { revoked_at: Some(80), ..made("b", 2) },
            TokenRow { last_used_at: Some(70), ..made("a", 1) },
        ];
        assert_eq!(at_once(store.tokens()).unwrap(), expected);
        assert_eq!(at_once(store.token("c")).unwrap(), Some(made("c", 3)));
        assert_eq!(at_once(store.token("d")).unwrap(), None);
    }
}
