// SPDX-License-Identifier: AGPL-3.0-or-later
//! Media tokens: which URL gives which medium to which job, and until when.

use rusqlite::{OptionalExtension, params};

use super::{Error, Store};

/// The two media of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumKind {
    Maintenance,
    Task,
}

impl MediumKind {
    pub fn name(self) -> &'static str {
        match self {
            MediumKind::Maintenance => "maintenance",
            MediumKind::Task => "task",
        }
    }
}

/// What a media token stands for.
#[derive(Debug, Clone)]
pub struct MediumRow {
    pub job_id: String,
    pub attempt: String,
    pub kind: MediumKind,
    pub revoked: bool,
}

impl Store {
    /// New tokens for a new insert; the job's earlier ones are dead from now on.
    pub async fn issue_media(
        &self,
        job_id: &str,
        tokens: [(MediumKind, Vec<u8>); 2],
        now: i64,
    ) -> Result<(), Error> {
        let job_id = job_id.to_owned();
        self.write(move |db| {
            revoke(db, &job_id, now)?;
            for (kind, hash) in tokens {
                db.execute(
                    "INSERT INTO media (token_hash, job_id, kind, created_at) VALUES (?1, ?2, ?3, ?4)",
                    params![hash, job_id, kind.name(), now],
                )?;
            }
            Ok(())
        })
        .await
    }

    pub async fn medium(&self, token_hash: Vec<u8>) -> Result<Option<MediumRow>, Error> {
        self.read(move |db| {
            Ok(db
                .query_row(
                    "SELECT job_id, jobs.attempt, kind, revoked_at IS NOT NULL FROM media
                     JOIN jobs ON jobs.id = job_id WHERE media.token_hash = ?1",
                    [token_hash],
                    |row| {
                        let kind: String = row.get(2)?;
                        let kind = match kind.as_str() {
                            "maintenance" => MediumKind::Maintenance,
                            _ => MediumKind::Task,
                        };
                        Ok(MediumRow {
                            job_id: row.get(0)?,
                            attempt: row.get(1)?,
                            kind,
                            revoked: row.get(3)?,
                        })
                    },
                )
                .optional()?)
        })
        .await
    }
}

/// Kills every media token of a job.
pub(super) fn revoke(db: &rusqlite::Connection, job_id: &str, now: i64) -> Result<(), Error> {
    db.execute(
        "UPDATE media SET revoked_at = ?2 WHERE job_id = ?1 AND revoked_at IS NULL",
        params![job_id, now],
    )?;
    Ok(())
}
