// SPDX-License-Identifier: AGPL-3.0-or-later
//! Functions for tests only, on a store in memory.

use std::fmt::Write;

use super::Store;

impl Store {
    /// Removes all rows; the statements stay compiled.
    pub fn empty(&self) -> rusqlite::Result<()> {
        assert!(self.is_at_once, "a store in memory");
        // Tables that refer to others were created after them.
        for table in self.tables("DESC")? {
            self.rows().execute(&format!("DELETE FROM {table}"), [])?;
        }
        Ok(())
    }

    /// Lets this many statements work and the next one fail; `None`: all work. Returns what is left of the previous
    /// number: `None` if a statement failed.
    pub fn fail_after(&self, statements: Option<u64>) -> Option<u64> {
        self.rows().left.replace(statements)
    }

    /// Executes a statement that no function of this store has.
    pub fn execute(&self, sql: &str) -> rusqlite::Result<usize> {
        self.rows().execute(sql, [])
    }

    /// Returns every job's id and its stored state.
    pub fn states(&self) -> rusqlite::Result<Vec<(String, String)>> {
        let db = self.rows();
        let mut query = db.prepare("SELECT id, state FROM jobs ORDER BY id")?;
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// Returns every row of every table as text.
    pub fn dump(&self) -> rusqlite::Result<String> {
        let mut text = String::new();
        for table in self.tables("ASC")? {
            let db = self.rows();
            let mut query = db.prepare(&format!("SELECT * FROM {table}"))?;
            let columns = query.column_count();
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                write!(text, "{table}").expect("a string takes everything");
                for column in 0..columns {
                    write!(text, " {:?}", row.get_ref(column)?).expect("a string takes everything");
                }
                text.push('\n');
            }
        }
        Ok(text)
    }

    fn tables(&self, order: &str) -> rusqlite::Result<Vec<String>> {
        let sql =
            format!("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid {order}");
        self.rows().prepare(&sql)?.query_map([], |row| row.get(0))?.collect()
    }
}
