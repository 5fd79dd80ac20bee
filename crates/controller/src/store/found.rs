// SPDX-License-Identifier: AGPL-3.0-or-later
//! The state in which a job found its machine: recorded once, before the job changes anything there.

use job::{Cleanup, State};
use rusqlite::{OptionalExtension, params};

use super::events::{Line, tell};
use super::job_row::get;
use super::{Error, JobRow, Store};
use crate::as_found::{Ending, Found};

impl JobRow {
    /// What decides how the state is put back. `sets_override_early`: the job's media plan sets the boot override
    /// together with the media.
    pub fn ending(&self, sets_override_early: bool) -> Ending<'_> {
        let is_unused =
            matches!(self.state, State::Closing { cleanup: Cleanup::EjectingUnused, .. });
        Ending {
            found: self.found.as_ref(),
            outcome: self.state.outcome(),
            is_permitted: self.permit.is_some(),
            is_boot_touched: !is_unused || sets_override_early,
        }
    }
}

impl Store {
    /// Records what a job found, unless it is recorded already, or the job may have changed it since.
    pub async fn record_found(&self, job_id: &str, found: Found, now: i64) -> Result<(), Error> {
        let job_id = job_id.to_owned();
        self.write(move |db| {
            let changed = db.execute(
                "UPDATE jobs SET found = ?2 WHERE id = ?1 AND found IS NULL AND media_plan IS NULL",
                params![job_id, serde_json::to_string(&found)?],
            )?;
            if changed == 0 {
                return Ok(());
            }
            let job = get(db, &job_id)?;
            let message = found.words();
            tell(db, &job, &Line { kind: "found", message: &message, ..Line::default() }, now)
        })
        .await
    }

    /// Adds an event: the job has enabled remote media, which its machine's BMC had disabled.
    pub async fn media_enabled(&self, job_id: &str, now: i64) -> Result<(), Error> {
        let job_id = job_id.to_owned();
        self.write(move |db| {
            let message =
                "remote media were disabled in the BMC: enabled until the job's media are ejected";
            let line = Line { kind: "remote_media", message, ..Line::default() };
            tell(db, &get(db, &job_id)?, &line, now)
        })
        .await
    }

    /// What the server's last job found, if it ended without putting everything back.
    pub async fn found_by_former(
        &self,
        server_serial: &str,
        job_id: &str,
    ) -> Result<Option<Found>, Error> {
        let (server_serial, job_id) = (server_serial.to_owned(), job_id.to_owned());
        self.read(move |db| {
            let last: Option<(String, Option<String>)> = db
                .query_row(
                    "SELECT state, found FROM jobs WHERE server_serial = ?1 AND id <> ?2
                     ORDER BY rowid DESC LIMIT 1",
                    [server_serial, job_id],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            let Some((state, Some(found))) = last else { return Ok(None) };
            let state: State = serde_json::from_str(&state)?;
            if state.problem().is_none() {
                return Ok(None);
            }
            Ok(Some(serde_json::from_str(&found)?))
        })
        .await
    }
}
