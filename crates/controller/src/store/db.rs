// SPDX-License-Identifier: AGPL-3.0-or-later
//! A connection that compiles each statement once: a job's hundred small statements cost more to
//! compile than to run.

use std::ops::Deref;

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, Params, Row};

/// More than there are statements in this program.
const STATEMENTS_MAX: usize = 128;

pub struct Db(Connection);

impl Db {
    pub fn new(connection: Connection) -> rusqlite::Result<Db> {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Else plans may depend on values, and a `LIMIT ?` alone has its statement compiled anew each time
        // (https://www.sqlite.org/c3ref/c_dbconfig_defensive.html, SQLITE_DBCONFIG_ENABLE_QPSG).
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Db(connection))
    }

    pub fn query_row<T, P: Params>(
        &self,
        sql: &str,
        params: P,
        read: impl FnOnce(&Row) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.0.prepare_cached(sql)?.query_row(params, read)
    }

    /// Answers how many rows were changed.
    pub fn execute<P: Params>(&self, sql: &str, params: P) -> rusqlite::Result<usize> {
        self.0.prepare_cached(sql)?.execute(params)
    }

    pub fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.0.prepare_cached(sql)
    }
}

impl Deref for Db {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
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
