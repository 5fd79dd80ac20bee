// SPDX-License-Identifier: AGPL-3.0-or-later
//! A job as stored, and how a row is read.

use api::jobs::JobStatus;
use api::node::{PermitRequest, Progress};
use job::{State, Status};
use rusqlite::{OptionalExtension, Row};

use super::Error;
use super::db::Db;
use crate::as_found::Found;

/// A job as stored.
#[derive(Debug, Clone)]
pub struct JobRow {
    pub id: String,
    pub server_serial: String,
    pub attempt: String,
    pub recipe: String,
    pub task_target: String,
    pub artifact_digest: Option<String>,
    pub state: State,
    pub epoch: i64,
    pub tries: u32,
    pub token_hash: Vec<u8>,
    pub hello_at: Option<i64>,
    pub boot_id: Option<String>,
    pub permit: Option<PermitRequest>,
    pub progress: Option<Progress>,
    pub created_at: i64,
    pub updated_at: i64,
    pub media_plan: Option<String>,
    /// See [`Store::unsettled`](super::Store::unsettled).
    pub unsettled_until: i64,
    /// What a person has to check, however the job ended.
    pub attention: Option<String>,
    /// `None` if not recorded yet, or if an older version ran the job.
    pub found: Option<Found>,
    /// The job may eject media that are not this controller's if no slot is free.
    pub ejects_foreign: bool,
}

pub(super) const SELECT: &str = "SELECT id, server_serial, attempt, recipe, task_target, artifact_digest, \
    state, epoch, tries, token_hash, hello_at, boot_id, permit, progress, created_at, updated_at, \
    media_plan, unsettled_until, attention, found, eject_foreign FROM jobs";

/// Selects rows without their recipes, which may have megabytes each: for lists, whose readers do not need them.
pub(super) fn select_brief() -> String {
    SELECT.replacen(" recipe,", " '' AS recipe,", 1)
}

fn parse<T: serde::de::DeserializeOwned>(index: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            index,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

fn parse_optional<T: serde::de::DeserializeOwned>(
    row: &Row,
    index: usize,
) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(index)?;
    text.map(|text| parse(index, &text)).transpose()
}

pub(super) fn job_row(row: &Row) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: row.get(0)?,
        server_serial: row.get(1)?,
        attempt: row.get(2)?,
        recipe: row.get(3)?,
        task_target: row.get(4)?,
        artifact_digest: row.get(5)?,
        state: parse(6, &row.get::<_, String>(6)?)?,
        epoch: row.get(7)?,
        tries: row.get(8)?,
        token_hash: row.get(9)?,
        hello_at: row.get(10)?,
        boot_id: row.get(11)?,
        permit: parse_optional(row, 12)?,
        progress: parse_optional(row, 13)?,
        created_at: row.get(14)?,
        updated_at: row.get(15)?,
        media_plan: row.get(16)?,
        unsettled_until: row.get(17)?,
        attention: row.get(18)?,
        found: parse_optional(row, 19)?,
        ejects_foreign: row.get(20)?,
    })
}

pub(super) fn get(db: &Db, id: &str) -> Result<JobRow, Error> {
    db.query_row(&format!("{SELECT} WHERE id = ?1"), [id], job_row)
        .optional()?
        .ok_or_else(|| Error::NotFound { what: "job", id: id.into() })
}

pub(super) fn get_attempt(db: &Db, attempt: &str) -> Result<JobRow, Error> {
    db.query_row(&format!("{SELECT} WHERE attempt = ?1"), [attempt], job_row)
        .optional()?
        .ok_or_else(|| Error::NotFound { what: "attempt", id: attempt.into() })
}

/// The API's word for a status, which is also stored in the column.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Queued => "queued",
        Status::Provisioning => "provisioning",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Complete => "complete",
    }
}

pub fn api_status(status: Status) -> JobStatus {
    match status {
        Status::Queued => JobStatus::Queued,
        Status::Provisioning => JobStatus::Provisioning,
        Status::Succeeded => JobStatus::Succeeded,
        Status::Failed => JobStatus::Failed,
        Status::Complete => JobStatus::Complete,
    }
}
