// SPDX-License-Identifier: AGPL-3.0-or-later
//! Media tokens: which URL serves which medium to which job, and until when. Also the slot of a BMC in which a medium
//! may be. The media of probes have no job.

use recipe::machine::Names;
use rusqlite::{OptionalExtension, params};

use super::{Db, Error, Store};

/// The recipient of a media token, whether the token is still valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issued {
    Job { id: String, is_open: bool },
    Probe,
}

/// The media of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediumKind {
    Maintenance,
    Task,
    /// The task medium as a USB stick: the same bytes, but BMCs decide by the extension of the file name.
    TaskStick,
    /// The maintenance OS and the task in one.
    Combined,
    /// The maintenance OS and the task in one, for the machine's firmware to download.
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

    /// The name that is stored.
    pub fn name(self) -> &'static str {
        match self {
            MediumKind::Maintenance => "maintenance",
            MediumKind::Task => "task",
            MediumKind::TaskStick => "task-stick",
            MediumKind::Combined => "combined",
            MediumKind::HttpBoot => "http-boot",
        }
    }

    /// The last part of its URL.
    pub fn file_name(self) -> &'static str {
        match self {
            MediumKind::Maintenance | MediumKind::Combined | MediumKind::HttpBoot => {
                "maintenance.iso"
            }
            MediumKind::Task => "task.iso",
            MediumKind::TaskStick => "task.img",
        }
    }

    /// Whether the machine boots from it.
    pub fn boots(self) -> bool {
        matches!(self, MediumKind::Maintenance | MediumKind::Combined | MediumKind::HttpBoot)
    }

    /// Whether it contains the task.
    pub fn is_combined(self) -> bool {
        matches!(self, MediumKind::Combined | MediumKind::HttpBoot)
    }
}

/// The medium to which a media token gives access.
#[derive(Debug, Clone)]
pub struct MediumRow {
    pub job_id: String,
    pub attempt: String,
    pub kind: MediumKind,
    pub revoked: bool,
}

/// A medium that is about to be inserted.
#[derive(Debug, Clone)]
pub struct NewMedium {
    pub kind: MediumKind,
    pub token_hash: Vec<u8>,
    /// Path of the slot for it; `None`: it is not inserted into a slot.
    pub slot: Option<String>,
}

/// How long a probe's medium that was not seen to be ejected is remembered: no slot in use shows one for longer.
const PROBES_KEPT_MS: i64 = 365 * 24 * 60 * 60 * 1000;
/// The last part of the URL of a probe's medium.
pub const PROBE_NAME: &str = "probe.iso";

impl Store {
    /// Stores new tokens for a new insert by this plan, into the machine that its BMC identifies by these names. The
    /// job's earlier tokens become invalid.
    pub async fn issue_media(
        &self,
        job_id: &str,
        media_plan: &'static str,
        machine_names: Names,
        media: Vec<NewMedium>,
        now: i64,
    ) -> Result<(), Error> {
        let job_id = job_id.to_owned();
        self.write(move |db| {
            revoke(db, &job_id, now)?;
            db.execute(
                "UPDATE jobs SET media_plan = ?2, machine_names = ?3 WHERE id = ?1",
                [job_id.as_str(), media_plan, &serde_json::to_string(&machine_names)?],
            )?;
            for NewMedium { kind, token_hash, slot } in media {
                db.execute(
                    "INSERT INTO media (token_hash, job_id, kind, created_at, slot)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![token_hash, job_id, kind.name(), now, slot],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Records the medium of a probe, before it is inserted into this slot.
    pub async fn issue_probe(
        &self,
        server_serial: &str,
        token_hash: Vec<u8>,
        slot: &str,
        now: i64,
    ) -> Result<(), Error> {
        let (server_serial, slot) = (server_serial.to_owned(), slot.to_owned());
        self.write(move |db| {
            db.execute(
                "DELETE FROM probe_media WHERE created_at < ?1",
                [now.saturating_sub(PROBES_KEPT_MS)],
            )?;
            db.execute(
                "INSERT INTO probe_media VALUES (?1, ?2, ?3, ?4)",
                params![token_hash, server_serial, slot, now],
            )?;
            Ok(())
        })
        .await
    }

    /// Removes a probe's medium that was ejected: no BMC will show it again.
    pub async fn end_probe(&self, token_hash: Vec<u8>) -> Result<(), Error> {
        self.write(move |db| {
            db.execute("DELETE FROM probe_media WHERE token_hash = ?1", [token_hash])?;
            Ok(())
        })
        .await
    }

    /// Returns the recipient of this token.
    pub async fn issued_to(&self, token_hash: Vec<u8>) -> Result<Option<Issued>, Error> {
        self.look_up(|db| {
            let job = db
                .query_row(
                    "SELECT job_id, jobs.status <> 'complete' FROM media
                     JOIN jobs ON jobs.id = job_id WHERE media.token_hash = ?1",
                    [&token_hash],
                    |row| Ok(Issued::Job { id: row.get(0)?, is_open: row.get(1)? }),
                )
                .optional()?;
            if job.is_some() {
                return Ok(job);
            }
            let is_probe: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM probe_media WHERE token_hash = ?1)",
                [&token_hash],
                |row| row.get(0),
            )?;
            Ok(is_probe.then_some(Issued::Probe))
        })
        .await
    }

    /// Returns the slots of a server's BMC into which media were inserted and that were not seen empty since, each
    /// with the name of its medium.
    pub async fn filled_slots(&self, server_serial: &str) -> Result<Vec<(String, String)>, Error> {
        self.look_up(|db| {
            let mut query = db.prepare(
                "SELECT slot, kind FROM jobs JOIN media ON media.job_id = jobs.id
                 WHERE server_serial = ?1 AND slot IS NOT NULL
                 UNION SELECT slot, NULL FROM probe_media
                 WHERE server_serial = ?1 AND slot IS NOT NULL",
            )?;
            let rows = query.query_map([server_serial], |row| {
                let name = match row.get::<_, Option<String>>(1)? {
                    Some(kind) => kind_of(&kind)?.file_name(),
                    None => PROBE_NAME,
                };
                Ok((row.get(0)?, name.to_owned()))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Returns the valid media of a job, each with its slot.
    pub async fn media_of(&self, job_id: &str) -> Result<Vec<(MediumKind, Option<String>)>, Error> {
        self.look_up(|db| {
            let mut query = db
                .prepare("SELECT kind, slot FROM media WHERE job_id = ?1 AND revoked_at IS NULL")?;
            let rows = query.query_map([job_id], |row| {
                Ok((kind_of(&row.get::<_, String>(0)?)?, row.get(1)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Records that these slots were seen empty: a medium found there later is not this controller's.
    pub async fn emptied(&self, server_serial: &str, slots: Vec<String>) -> Result<(), Error> {
        if slots.is_empty() {
            return Ok(());
        }
        let server_serial = server_serial.to_owned();
        self.write(move |db| {
            for slot in slots {
                db.execute(
                    "UPDATE media SET slot = NULL WHERE slot = ?2
                     AND job_id IN (SELECT id FROM jobs WHERE server_serial = ?1)",
                    [&server_serial, &slot],
                )?;
                db.execute(
                    "UPDATE probe_media SET slot = NULL WHERE server_serial = ?1 AND slot = ?2",
                    [&server_serial, &slot],
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
                        Ok(MediumRow {
                            job_id: row.get(0)?,
                            attempt: row.get(1)?,
                            kind: kind_of(&row.get::<_, String>(2)?)?,
                            revoked: row.get(3)?,
                        })
                    },
                )
                .optional()?)
        })
        .await
    }
}

fn kind_of(name: &str) -> rusqlite::Result<MediumKind> {
    let kind = MediumKind::ALL.into_iter().find(|known| known.name() == name);
    kind.ok_or(rusqlite::Error::InvalidQuery)
}

/// Revokes every media token of a job.
pub(super) fn revoke(db: &Db, job_id: &str, now: i64) -> Result<(), Error> {
    db.execute(
        "UPDATE media SET revoked_at = ?2 WHERE job_id = ?1 AND revoked_at IS NULL",
        params![job_id, now],
    )?;
    Ok(())
}
