// SPDX-License-Identifier: AGPL-3.0-or-later
//! The recipe as files in `/run/provision`. The dispatcher writes them, every tool reads them. The names and
//! `recipe.env` are a published contract that tools from others use too.

use serde::{Deserialize, Serialize};

use crate::layout::{Partition, Size};
use crate::model::{Recipe, Workflow};
use crate::payload::Payload;
use crate::problem::Problem;
use crate::target_disk::DiskFacts;
use crate::{File, task_medium};

/// The directory.
pub const DIR: &str = "/run/provision";
/// The agent's socket, in the same directory.
pub const AGENT_SOCKET: &str = "/run/provision/agent.sock";
/// What `image-check` and `image-linux` need to pull from the controller's registry. It is not visible to other
/// tools.
pub const PULL_FILE: &str = "/run/shoal/pull.json";

/// Which machine this is, and which disk was selected: `identity.json`. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub job_id: String,
    pub attempt_id: String,
    pub server_serial: String,
    pub boot_id: String,
    /// The disk that `target_disk` selects. `None` if the workflow writes no disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskFacts>,
}

/// Access to the controller's registry: `pull.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullAccess {
    pub authority: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    pub token: Payload,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0} is missing in {DIR}")]
    Missing(&'static str),
    #[error("{name} in {DIR} cannot be read")]
    Json { name: &'static str, source: serde_json::Error },
    #[error("recipe.json in {DIR} is not valid: {}", task_medium::list(.0))]
    Recipe(Vec<Problem>),
}

/// Returns every file of `/run/provision`.
pub fn files(recipe: &Recipe, identity: &Identity) -> Vec<File> {
    let file = |name: &str, bytes: Vec<u8>| File { name: name.into(), bytes };
    let json = |value: Vec<u8>| [value, b"\n".to_vec()].concat();
    let identity_json = serde_json::to_vec_pretty(identity).expect("an identity is plain data");
    let mut files = vec![
        file("recipe.env", env(recipe, identity).into_bytes()),
        file("recipe.json", recipe.to_json()),
        file("identity.json", json(identity_json)),
        file("build-info.txt", build_info(recipe, identity).into_bytes()),
    ];
    if !recipe.layout().is_empty() {
        files.push(file("layout.json", json(layout_json(recipe.layout()))));
    }
    for (name, payload) in recipe.payloads() {
        let name = if name == "KS.CFG" { "ks.cfg" } else { name };
        files.push(file(name, payload.as_bytes().to_vec()));
    }
    files
}

/// Reads the recipe and the identity from the files of a directory.
pub fn read(files: &[File]) -> Result<(Recipe, Identity), ReadError> {
    let find = |name: &'static str| {
        files.iter().find(|file| file.name == name).ok_or(ReadError::Missing(name))
    };
    let recipe = Recipe::parse(&find("recipe.json")?.bytes).map_err(ReadError::Recipe)?;
    let identity = serde_json::from_slice(&find("identity.json")?.bytes)
        .map_err(|source| ReadError::Json { name: "identity.json", source })?;
    Ok((recipe, identity))
}

/// Returns the machine's access to the registry, if the attempt has one.
pub fn pull_access(attempt: &task_medium::Attempt) -> Option<PullAccess> {
    let registry = attempt.registry.as_ref()?;
    Some(PullAccess {
        authority: registry.authority.clone(),
        ca_pem: attempt.controller_ca_pem.clone(),
        token: registry.token.clone(),
        digest: attempt.artifact_digest.clone(),
    })
}

/// `NAME=value` lines in the format of podman's `--env-file`: everything after `=` is the value, without quoting or
/// escapes. A value cannot contain line breaks: the schema rejects them.
fn env(recipe: &Recipe, identity: &Identity) -> String {
    let mut lines = vec![
        ("TASK_TARGET".to_owned(), recipe.task_target.to_string()),
        ("SERIAL_NUMBER".to_owned(), identity.server_serial.clone()),
        ("SHOAL_JOB_ID".to_owned(), identity.job_id.clone()),
        ("SHOAL_ATTEMPT_ID".to_owned(), identity.attempt_id.clone()),
    ];
    let mut put = |name: &str, value: &str| lines.push((name.to_owned(), value.to_owned()));
    if let Some(disk) = &identity.disk {
        put("TARGET_DISK", &format!("/dev/{}", disk.name));
    }
    match &recipe.workflow {
        Workflow::Linux(linux) => put("OCI_URL", &linux.oci_url),
        Workflow::Windows(windows) => {
            put("OCI_URL", &windows.oci_url);
            put("WIM_INDEX", &windows.wim_index.to_string());
        }
        Workflow::Firmware(firmware) => {
            put("FIRMWARE_URL", &firmware.url);
            put("FIRMWARE_SHA256", firmware.sha256.as_deref().unwrap_or_default());
        }
        Workflow::Esxi(_) | Workflow::Custom => {}
    }
    lines.extend(recipe.env.clone());
    // The schema rejects line breaks in a recipe. A DMI serial that has one is only in identity.json.
    lines.retain(|(_, value)| !value.contains(['\n', '\r', '\0']));
    lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

fn build_info(recipe: &Recipe, identity: &Identity) -> String {
    format!(
        "job {}\nattempt {}\nserver {}\ntarget {}\n",
        identity.job_id, identity.attempt_id, identity.server_serial, recipe.task_target
    )
}

/// The layout in the published format: strings, and one object for each partition.
fn layout_json(layout: &[Partition]) -> Vec<u8> {
    let parts: Vec<_> = layout
        .iter()
        .map(|part| {
            let size = match part.size {
                Size::Bytes(bytes) => format!("{}M", bytes >> 20),
                Size::Remaining => "100%".into(),
            };
            serde_json::json!({
                "number": part.number,
                "size": size,
                "type_guid": part.type_guid.as_str(),
                "format": part.format.name(),
                "label": part.label,
            })
        })
        .collect();
    serde_json::to_vec_pretty(&parts).expect("a layout is plain data")
}
