// SPDX-License-Identifier: AGPL-3.0-or-later
//! A connection that compiles each statement once: a job's hundred small statements cost more to
//! compile than to run.

use std::ops::Deref;

use rusqlite::{CachedStatement, Connection, Params, Row};

/// More than there are statements in this program.
const STATEMENTS_MAX: usize = 128;

pub struct Db(Connection);

impl Db {
    pub fn new(connection: Connection) -> Db {
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Db(connection)
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
