// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal artifact`: OS images in the controller's registry.
//!
//! - `kind`: detecting what a file is, and its annotations; `push`: a file as an artifact;
//! - `upload`: a blob in chunks, resumed after a broken connection or on another day;
//! - `uploads`: unfinished uploads;
//! - `upkeep`: collection, scrub, bundles;
//! - `bar`: the progress bar of a transfer.

mod bar;
mod kind;
mod push;
mod upkeep;
mod upload;
mod uploads;

use std::path::Path;

use serde_json::Value;

use crate::args::{Artifact, Output, Uploads};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{show, text};

pub use kind::Kind;

const HEAD: [&str; 3] = ["REPOSITORY", "TAG", "DIGEST"];
/// Returns whether install-linux.target can install it, and if not, why.
const LIST_HEAD: [&str; 5] = ["REPOSITORY", "TAG", "DIGEST", "VERDICT", "REASON"];

pub fn run(client: &Client, format: Output, command: Artifact) -> Result<(), Failure> {
    match command {
        Artifact::Push { name, file, kind } => {
            let pushed = push::push(client, &name, &file, kind)?;
            show(format, &pushed, &HEAD, |pushed| vec![row(pushed)]);
        }
        Artifact::List => {
            let list = client.get("/api/v1/artifacts")?;
            show(format, &list, &LIST_HEAD, |list| {
                list["artifacts"].as_array().into_iter().flatten().map(judged_row).collect()
            });
        }
        Artifact::Delete { name } => upkeep::delete(client, &name)?,
        Artifact::Gc { uploads } => upkeep::collect(client, format, uploads)?,
        Artifact::Uploads(Uploads::List) => uploads::list(client, format)?,
        Artifact::Uploads(Uploads::Cancel { id }) => uploads::cancel(client, &id)?,
        Artifact::Scrub => upkeep::scrub(client, format)?,
        Artifact::Export { bundle, names, maintenance_iso } => {
            upkeep::export(client, &names, maintenance_iso, &bundle)?;
        }
        Artifact::Import { bundle } => upkeep::import(client, format, &bundle)?,
    }
    Ok(())
}

/// Pushes a file to the registry under `name`; its kind is detected from its bytes.
pub fn push(client: &Client, name: &str, file: &Path) -> Result<(), Failure> {
    push::push(client, name, file, None).map(drop)
}

fn row(artifact: &Value) -> Vec<String> {
    ["repository", "tag", "digest"].iter().map(|key| text(artifact, &format!("/{key}"))).collect()
}

fn judged_row(artifact: &Value) -> Vec<String> {
    let mut row = row(artifact);
    row.extend(["/verdict", "/reason"].map(|place| text(artifact, place)));
    row
}
