// SPDX-License-Identifier: AGPL-3.0-or-later
//! Jobs: one recipe carried out once on one server. `/api/v1/jobs`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Body of `POST /jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    /// Serial number of a server that is known here.
    pub server_serial: String,
    /// The recipe, as `recipe.schema.json` describes it.
    #[schemars(schema_with = "crate::openapi::recipe_reference")]
    pub recipe: Value,
    /// Where every virtual media slot that could be used holds a medium that is not this controller's: the job may
    /// eject one, and does not put it back. Without this such a job ends before it changes anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eject_foreign: bool,
}

/// The five words of a job's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    Queued,
    Provisioning,
    Succeeded,
    Failed,
    Complete,
}

/// How a job ended; kept after it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobOutcome {
    Succeeded,
    Failed,
}

/// A job as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    pub id: String,
    pub server_serial: String,
    pub status: JobStatus,
    /// What is being done now, finer than `status`: `inserting_media`, `writing`, ...
    pub stage: String,
    /// Known from the moment that the job succeeded or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<JobOutcome>,
    /// The unit, or the controller's step, that failed. Never erased by a later state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What could not be put back at the end (media, boot override, power), if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_problem: Option<String>,
    /// What somebody has to look at, if anything: what is not known of the machine's disk, and what could
    /// not be put back. Known when `outcome` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_attention: Option<String>,
    /// The step that runs on the machine and how far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<crate::node::Progress>,
    /// The recipe's systemd target.
    pub task_target: String,
    /// How the media were inserted: `cd+cd`, `cd+usb`, `cd` where the task lies in the maintenance
    /// medium, or `http` where the machine's firmware downloads that. Chosen by what the BMC shows; absent
    /// before the first insert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_plan: Option<String>,
    /// The job may eject media that are not this controller's, for want of a free slot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eject_foreign: bool,
    /// The recipe with `user_data` and other payloads replaced by their size; only in `GET /jobs/{id}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    pub recipe: Option<Value>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    pub jobs: Vec<Job>,
    /// Give it as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Answer of `POST /jobs?mode=plan`: what a job would meet. Nothing was stored or booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    pub server_serial: String,
    pub task_target: String,
    /// What `oci_url` means now; absent for an artifact in another registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_digest: Option<String>,
    /// How the media would be inserted, such as `cd+cd`; absent where nothing fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_plan: Option<String>,
    pub checks: Vec<Check>,
    /// No check failed.
    pub is_ready: bool,
    /// How long the last jobs with this target took, as their median; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<u64>,
}

/// One thing that was looked at: `target`, `maintenance-iso`, `server`, `artifact`, `disk`, `bmc`,
/// `media-plan`, `foreign-media`, `fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    pub name: String,
    pub result: CheckResult,
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    Pass,
    /// Could not be looked at, or may be trouble.
    Warn,
    /// A job would fail.
    Fail,
}

/// Every word that [`JobEvent::kind`] may be.
pub const EVENT_KINDS: &[&str] = &[
    "queued",
    "attempting",
    "retrying",
    "done",
    "gave_up",
    "found",
    "remote_media",
    "boot",
    "boot_lost",
    "hello",
    "hello_late",
    "hello_refused",
    "session_refused",
    "session_replaced",
    "secrets_read",
    "unsettled",
    "clock",
    "foreign_ejected",
    "permitted",
    "permit_refused",
    "step",
    "log",
    "dropped",
    "overdue",
    "succeeded",
    "failed",
    "cancelled",
    "restored",
];

/// One line of a job's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobEvent {
    /// 1, 2, 3 ... within the job; `Last-Event-ID` of the event stream.
    pub seq: u64,
    pub at: Timestamp,
    /// A stable word, `queued`, `attempting`, `retrying`, `done`, `gave_up`, `found`, `remote_media`, `boot`,
    /// `boot_lost`, `hello`, `hello_late`, `hello_refused`, `session_refused`, `session_replaced`, `secrets_read`,
    /// `unsettled`, `clock`, `foreign_ejected`, `permitted`, `permit_refused`, `step`, `log`, `dropped`, `overdue`,
    /// `succeeded`, `failed`, `cancelled`, `restored`. `dropped` stands in the place of the machine's lines that a
    /// job has no room for.
    pub kind: String,
    /// For people.
    pub message: String,
    /// The job's status after this event.
    pub status: JobStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Answer of `GET /jobs/{id}/events` as JSON; `Accept: text/event-stream` gives the same as SSE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobEvents {
    /// Oldest first.
    pub events: Vec<JobEvent>,
    /// `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Body of `POST /status-webhook/{serial}`, for senders that are not our dispatcher. They give the
/// admin token, or `X-Webhook-Secret` where the controller has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusWebhook {
    pub status: WebhookStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_step: Option<String>,
    /// A repeated delivery with the same id for the same server answers 200 and changes nothing,
    /// also after the job is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
}

/// The two ends that a webhook may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookStatus {
    Success,
    Failed,
}
