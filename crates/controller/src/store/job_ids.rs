// SPDX-License-Identifier: AGPL-3.0-or-later
//! Finds jobs by the beginning of their ids, as users type them.

use rusqlite::params;

use super::{Error, Store};

/// Shorter beginnings are a mistake: the first digits of a version 7 UUID are the same for years.
const START_CHARS_MIN: usize = 4;
/// The length of a complete id (RFC 9562, section 4).
const ID_CHARS: usize = 36;
/// How many ids are listed if a beginning is ambiguous.
const SHOWN_MAX: usize = 5;

impl Store {
    /// Returns the id of the only job whose id begins like this; the text itself if there is none.
    pub async fn job_id(&self, start: &str) -> Result<String, Error> {
        // A complete id or a wrong one: the query for the job decides.
        if !(START_CHARS_MIN..ID_CHARS).contains(&start.len()) {
            return Ok(start.to_owned());
        }
        let found: Vec<String> = self
            .look_up(|db| {
                // Ids are lower-case hex and hyphens, which sort before `g`, so the index of the ids serves this
                // query.
                let mut query = db.prepare(
                    "SELECT id FROM jobs WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT ?2",
                )?;
                let rows = query.query_map(params![start, SHOWN_MAX + 1], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await?;
        match &found[..] {
            [] => Ok(start.to_owned()),
            [first, ..] if first == start => Ok(first.clone()),
            [one] => Ok(one.clone()),
            several => {
                let shown = several[..several.len().min(SHOWN_MAX)].join(", ");
                let more = if several.len() > SHOWN_MAX { ", and more" } else { "" };
                Err(Error::Ambiguous(format!(
                    "{start} is the beginning of several jobs' ids: {shown}{more}; write more of it"
                )))
            }
        }
    }
}
