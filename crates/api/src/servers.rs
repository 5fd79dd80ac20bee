// SPDX-License-Identifier: AGPL-3.0-or-later
//! Servers: which machine is reached at which BMC. `GET|PUT|DELETE /api/v1/servers/{serial}`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Body of `PUT /servers/{serial}`: creates the server or replaces how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerSpec {
    pub bmc: BmcSpec,
    /// Which family of BMCs it is, such as `dell-idrac9`, where the BMC itself does not tell, or tells
    /// it wrong. Left out, it is what the BMC says; a probe shows which that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_profile: Option<String>,
    /// The BMC tells another UUID than the machine's firmware has, and always has: only the serial number
    /// tells then whether a job writes the right machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dangerously_ignore_uuid: bool,
}

/// How to reach a BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BmcSpec {
    /// `https://` and host, optionally a port; no path.
    pub url: String,
    pub username: String,
    /// Write-only: never answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("writeOnly" = true))]
    pub password: Option<String>,
    /// SHA-256 of the BMC's certificate (DER), hex. Without it and without `ca_pem`, a server that is
    /// known at this URL keeps whom it trusts; of a new one, the certificate that the BMC shows is
    /// pinned, and answered here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    /// PEM of the CA that signed the BMC's certificate, instead of a pin; both together are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// A server as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    pub serial: String,
    pub bmc: BmcSpec,
    /// As a person set it; absent where the BMC's own word counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc_profile: Option<String>,
    /// As a person set it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dangerously_ignore_uuid: bool,
    /// When the BMC refused these credentials. They are not sent again until they are set anew, so
    /// that no account is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_refused_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The job that is not complete yet, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_job: Option<String>,
}

/// A page of servers, by serial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerList {
    pub servers: Vec<Server>,
}

/// What `POST /servers/{serial}/probe` saw; nothing on the machine is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    pub manufacturer: String,
    pub model: String,
    pub serial: String,
    /// Each name by which the BMC says that the machine is known, and which of them do not count because
    /// several machines bear them, such as `service tag "ABC1234"`.
    #[serde(default)]
    pub names: Vec<String>,
    pub power: String,
    pub boot_override: String,
    /// The family of BMCs by which it is treated, such as `hpe-ilo5`; `standard` where none fits.
    pub bmc_profile: String,
    /// The BMC's firmware, empty where it does not tell.
    pub bmc_firmware: String,
    pub certificate_sha256: String,
    pub slots: Vec<ProbedSlot>,
    /// The media plan that a job would use, such as `cd+cd`; absent where none fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_plan: Option<String>,
    /// What stands in the way of a job, empty if nothing does.
    pub problems: Vec<String>,
    /// Whether the BMC can read from this controller; absent where that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<Fetch>,
}

/// What came of inserting a small medium and ejecting it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fetch {
    pub result: FetchResult,
    /// The same in a sentence.
    pub detail: String,
    /// The slot that was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    pub bytes: u64,
    /// Absent where too little was read to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kib_per_second: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FetchResult {
    Read,
    /// Inserted, but nobody read: some BMCs read only when a machine boots.
    NotRead,
    /// The BMC did not insert it.
    Refused,
    /// Not tried: a job is active, or every slot is taken.
    Skipped,
}

/// One virtual media slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProbedSlot {
    pub path: String,
    pub media_types: Vec<String>,
    pub inserted: bool,
    /// The medium's URL with its secret path segment left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Body of `POST /servers/{serial}/actions/power`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerAction {
    pub power: PowerSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerSet {
    On,
    /// The running system is asked first, and the power taken away if it does not obey.
    Off,
    ForceOff,
    /// The running system is asked to restart. A machine that is off is switched on.
    Restart,
    /// The machine starts anew at once, as by its reset button. One that is off is switched on.
    Reset,
    /// The power is taken away and given again. A machine that is off is switched on.
    Cycle,
}

/// Body of `POST /servers/{serial}/actions/boot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BootAction {
    pub boot: BootOnce,
}

/// Where the next boot is from, and only that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootOnce {
    /// The virtual CD, by UEFI.
    Cd,
    /// The machine's own order.
    None,
}

/// What the BMC shows after an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerState {
    pub power: String,
    pub boot_override: String,
}

/// The BMC's inventory of firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FirmwareList {
    pub firmware: Vec<Firmware>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Firmware {
    pub name: String,
    pub version: String,
    /// Of the item on the BMC.
    pub path: String,
}

/// Body of `POST /servers/{serial}/firmware` for an image that is in the controller's registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFirmwareUpdate {
    /// `REPOSITORY:TAG` or `REPOSITORY@DIGEST` of an artifact with one layer: the image.
    pub image: String,
    /// What is updated: names or paths of the inventory, or another path on the BMC that its vendor
    /// names. Without any, the BMC goes by the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// The version that must be installed afterwards. Without it, some version must have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The last firmware update of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FirmwareUpdate {
    pub id: String,
    pub server_serial: String,
    pub state: UpdateState,
    /// What it does, or did when it ended.
    pub step: UpdateStep,
    /// Why it failed, or why nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The image's name, as the BMC was told.
    pub file_name: String,
    pub bytes: u64,
    pub sha256: String,
    pub targets: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How the image goes to the BMC; absent before it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<UpdateWay>,
    /// The inventory before, and after; empty where it was not read.
    pub before: Vec<Firmware>,
    pub after: Vec<Firmware>,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    Running,
    /// The inventory shows it.
    Succeeded,
    Failed,
    /// The BMC had the image when the controller lost sight of it: look before doing it again.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStep {
    /// The BMC is found, and its inventory read.
    #[serde(rename = "firmware.discover")]
    Discover,
    /// The image goes to the BMC.
    #[serde(rename = "firmware.transfer")]
    Transfer,
    /// The BMC's task is followed.
    #[serde(rename = "firmware.task")]
    Task,
    /// The inventory is read again.
    #[serde(rename = "firmware.version")]
    Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpdateWay {
    /// Sent by the controller (`MultipartHttpPushUri`).
    Push,
    /// Fetched by the BMC from the controller (`SimpleUpdate`).
    Pull,
}
