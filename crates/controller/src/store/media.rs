// SPDX-License-Identifier: AGPL-3.0-or-later
//! Media tokens: which URL gives which medium to which job, and until when; and in which slot of a BMC a medium may
//! be. The media of probes have no job.

use recipe::machine::Names;
use rusqlite::{OptionalExtension, params};

use super::{Db, Error, Store};

/// For whom a media token was issued, be it still good or not.
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

/// A medium that is to be inserted.
#[derive(Debug, Clone)]
pub struct NewMedium {
    pub kind: MediumKind,
    pub token_hash: Vec<u8>,
    /// Path of the slot that it goes into; `None`: it goes into none.
    pub slot: Option<String>,
}

/// How long a probe's medium is known that was not seen to be ejected: no slot that is used shows one for longer.
const PROBES_KEPT_MS: i64 = 365 * 24 * 60 * 60 * 1000;
/// Last part of the URL of a probe's medium.
pub const PROBE_NAME: &str = "probe.iso";

impl Store {
    /// New tokens for a new insert by this plan, into the machine that its BMC knows by these names; the job's earlier ones are
    /// dead from now on.
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

    /// The medium of a probe, before it is inserted into this slot.
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

    /// A probe's medium was ejected: nobody will show it again.
    pub async fn end_probe(&self, token_hash: Vec<u8>) -> Result<(), Error> {
        self.write(move |db| {
            db.execute("DELETE FROM probe_media WHERE token_hash = ?1", [token_hash])?;
            Ok(())
        })
        .await
    }

    /// For whom this token was issued.
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

    /// The slots of a server's BMC that media were put into and that were not seen empty since, each with the name of
    /// its medium.
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

    /// The places of a job's media that are good, each with its slot.
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

    /// These slots were seen empty: what they hold from now on is another's.
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

/// Kills every media token of a job.
pub(super) fn revoke(db: &Db, job_id: &str, now: i64) -> Result<(), Error> {
    db.execute(
        "UPDATE media SET revoked_at = ?2 WHERE job_id = ?1 AND revoked_at IS NULL",
        params![job_id, now],
    )?;
    Ok(())
}
