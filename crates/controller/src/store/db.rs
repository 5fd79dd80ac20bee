// SPDX-License-Identifier: AGPL-3.0-or-later
//! A connection that compiles each statement once: compiling a job's hundred small statements costs more than running
//! them.

use std::ops::Deref;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, Params, Row};

/// More than the number of statements in this program.
const STATEMENTS_MAX: usize = 128;

pub struct Db {
    connection: Connection,
    /// For tests: this many statements still work, and the next one fails.
    #[cfg(test)]
    pub left: std::cell::Cell<Option<u64>>,
}

impl Db {
    pub fn new(connection: Connection) -> rusqlite::Result<Db> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Otherwise plans may depend on values, and a `LIMIT ?` alone has its statement compiled again each time
        // (https://www.sqlite.org/c3ref/c_dbconfig_defensive.html, SQLITE_DBCONFIG_ENABLE_QPSG).
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Db {
            connection,
            #[cfg(test)]
            left: std::cell::Cell::default(),
        })
    }

    pub fn query_row<T, P: Params>(
        &self,
        sql: &str,
        params: P,
        read: impl FnOnce(&Row) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.prepare(sql)?.query_row(params, read)
    }

    /// Returns the number of changed rows.
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(params)
    }

    pub fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        #[cfg(test)]
        self.fail_in_turn()?;
        self.connection.prepare_cached(sql)
    }

    #[cfg(test)]
    fn fail_in_turn(&self) -> rusqlite::Result<()> {
        match self.left.get() {
            Some(0) => {
                self.left.set(None);
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
                Err(rusqlite::Error::SqliteFailure(code, None))
            }
            left => {
                self.left.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

impl Deref for Db {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_compiled_once_whatever_is_bound_to_it() {
        let db = Db::new(super::super::connect::open_in_memory().unwrap()).unwrap();
        let sql = "SELECT seq FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
        for limit in 1..4 {
            let mut query = db.prepare(sql).unwrap();
            assert_eq!(query.query([0, limit]).unwrap().next().unwrap().map(|_| ()), None);
        }
        let query = db.prepare(sql).unwrap();
        assert_eq!(query.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }
}
