// SPDX-License-Identifier: AGPL-3.0-or-later
//! Media tokens: which URL gives which medium to which job, and until when.

use recipe::machine::Names;
use rusqlite::{OptionalExtension, params};

use super::{Db, Error, Store};

/// The media of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumKind {
    Maintenance,
    Task,
    /// The task medium as a USB stick: the same bytes, but BMCs go by a name's ending.
    TaskStick,
    /// Both in one.
    Combined,
    /// Both in one, for the machine's firmware to download.
    HttpBoot,
}

impl MediumKind {
    const ALL: [MediumKind; 5] = [
        MediumKind::Maintenance,
        MediumKind::Task,
        MediumKind::TaskStick,
        MediumKind::Combined,
        MediumKind::HttpBoot,
    ];

    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            MediumKind::Maintenance => "maintenance",
            MediumKind::Task => "task",
            MediumKind::TaskStick => "task-stick",
            MediumKind::Combined => "combined",
            MediumKind::HttpBoot => "http-boot",
        }
    }

    /// Last part of its URL.
    pub fn file_name(self) -> &'static str {
        match self {
            MediumKind::Maintenance | MediumKind::Combined | MediumKind::HttpBoot => {
                "maintenance.iso"
            }
            MediumKind::Task => "task.iso",
            MediumKind::TaskStick => "task.img",
        }
    }

    /// The machine boots from it.
    pub fn boots(self) -> bool {
        matches!(self, MediumKind::Maintenance | MediumKind::Combined | MediumKind::HttpBoot)
    }

    /// The task lies within it.
    pub fn is_combined(self) -> bool {
        matches!(self, MediumKind::Combined | MediumKind::HttpBoot)
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
    /// New tokens for a new insert by this plan, into the machine that its BMC knows by these names; the job's earlier ones are
    /// dead from now on.
    pub async fn issue_media(
        &self,
        job_id: &str,
        media_plan: &'static str,
        machine_names: Names,
        tokens: Vec<(MediumKind, Vec<u8>)>,
        now: i64,
    ) -> Result<(), Error> {
        let job_id = job_id.to_owned();
        self.write(move |db| {
            revoke(db, &job_id, now)?;
            db.execute(
                "UPDATE jobs SET media_plan = ?2, machine_names = ?3 WHERE id = ?1",
                [job_id.as_str(), media_plan, &serde_json::to_string(&machine_names)?],
            )?;
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
        self.look_up(|db| {
            Ok(db
                .query_row(
                    "SELECT job_id, jobs.attempt, kind, revoked_at IS NOT NULL FROM media
                     JOIN jobs ON jobs.id = job_id WHERE media.token_hash = ?1",
                    [token_hash],
                    |row| {
                        let kind: String = row.get(2)?;
                        let kind = MediumKind::ALL.into_iter().find(|known| known.name() == kind);
                        Ok(MediumRow {
                            job_id: row.get(0)?,
                            attempt: row.get(1)?,
                            kind: kind.ok_or(rusqlite::Error::InvalidQuery)?,
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
pub(super) fn revoke(db: &Db, job_id: &str, now: i64) -> Result<(), Error> {
    db.execute(
        "UPDATE media SET revoked_at = ?2 WHERE job_id = ?1 AND revoked_at IS NULL",
        params![job_id, now],
    )?;
    Ok(())
}
