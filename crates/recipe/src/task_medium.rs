// SPDX-License-Identifier: AGPL-3.0-or-later
//! The recipe as files on the task medium. The controller (or `shoal iso build`) writes them, the dispatcher reads
//! them. The file names are fixed; the content is the user's.

use serde::{Deserialize, Serialize};

use crate::machine::Names;
use crate::payload::Payload;
use crate::problem::Problem;
use crate::{File, Recipe, SCHEMA};

/// The beginning of every task medium's volume id.
pub const VOLUME_PREFIX: &str = "TASK_";
/// The task medium within the maintenance medium, for a BMC with one slot. The image has a file of zeros there; the
/// controller serves the task medium in its place.
pub const RESERVED_FILE: &str = "shoal/task.img";
/// ISO 9660 has room for 32 characters in a volume id (ECMA-119, 8.4.7).
const VOLUME_CHARS_MAX: usize = 32;

/// Which machine this medium is for, and where that reports: `/attempt.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    pub job_id: String,
    pub attempt_id: String,
    pub server_serial: String,
    /// The names by which the BMC knows the machine. If empty, the machine itself must have the name `server_serial`.
    #[serde(default, skip_serializing_if = "Names::is_empty")]
    pub machine_names: Names,
    /// The BMC is known to report a wrong UUID.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignores_uuid: bool,
    /// Scheme, host and port, without a slash at the end.
    pub controller_url: String,
    /// The CA to trust for `controller_url`. `None`: plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_ca_pem: Option<String>,
    pub token: Payload,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistryAccess>,
    /// The digest that `oci_url` resolved to when the job was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_digest: Option<String>,
    /// The recipe on the medium contains stand-ins ([`Recipe::without_secrets`]). The controller gives the whole recipe
    /// to the boot that has the permit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withholds_secrets: bool,
}

/// The controller's own registry, as the machine reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryAccess {
    /// `host:port`.
    pub authority: String,
    /// A token that can only pull the job's artifact. Tools get this token, not the attempt's.
    pub token: Payload,
}

/// Why a task medium cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0} is not on the task medium")]
    Missing(&'static str),
    #[error("attempt.json cannot be read")]
    Attempt(#[source] serde_json::Error),
    #[error("the recipe is not valid: {}", list(.0))]
    Recipe(Vec<Problem>),
}

pub(crate) fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    lines.join("; ")
}

/// The medium's volume id: `TASK_` and as many characters of the job's id as fit.
pub fn volume_id(job_id: &str) -> String {
    let id: String = job_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_uppercase())
        .take(VOLUME_CHARS_MAX - VOLUME_PREFIX.len())
        .collect();
    format!("{VOLUME_PREFIX}{id}")
}

/// The files of a job's medium.
pub fn files(recipe: &Recipe, attempt: &Attempt) -> Vec<File> {
    let mut files = match attempt.withholds_secrets {
        true => files_offline(&recipe.without_secrets()),
        false => files_offline(recipe),
    };
    let bytes = serde_json::to_vec_pretty(attempt).expect("an attempt is plain data");
    files.push(File { name: "attempt.json".into(), bytes });
    files
}

/// The files of a medium without a job.
pub fn files_offline(recipe: &Recipe) -> Vec<File> {
    let mut files = vec![
        File { name: "recipe.json".into(), bytes: recipe.to_json() },
        File { name: "recipe.schema.json".into(), bytes: SCHEMA.as_bytes().to_vec() },
    ];
    // Installers look for these. The other files of cloud-init are only within the recipe.
    for (name, payload) in recipe.payloads() {
        if matches!(name, "user-data" | "unattend.xml" | "KS.CFG") {
            files.push(File { name: name.into(), bytes: payload.as_bytes().to_vec() });
        }
    }
    files
}

/// Reads the attempt. It is separate from the recipe: a problem with the recipe is reported to the controller that
/// the attempt names.
pub fn read_attempt(files: &[File]) -> Result<Attempt, ReadError> {
    serde_json::from_slice(find(files, "attempt.json")?).map_err(ReadError::Attempt)
}

/// Reads the recipe.
pub fn read_recipe(files: &[File]) -> Result<Recipe, ReadError> {
    Recipe::parse(find(files, "recipe.json")?).map_err(ReadError::Recipe)
}

fn find<'a>(files: &'a [File], name: &'static str) -> Result<&'a [u8], ReadError> {
    let file = files.iter().find(|file| file.name == name).ok_or(ReadError::Missing(name))?;
    Ok(&file.bytes)
}
