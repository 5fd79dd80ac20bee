// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal artifact`: OS images in the controller's registry.
//!
//! - `kind`: what a file is, and what must be told of it; `push`: a file as an artifact;
//! - `upload`: a blob in chunks, again after a broken connection or on another day;
//! - `uploads`: what others have begun and not finished;
//! - `upkeep`: collection, scrub, bundles, tokens;
//! - `bar`: how far a transfer is.

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
/// Whether install-linux.target can install it, and why not.
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

/// Puts a file into the registry under `name`; what it is, its bytes tell.
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
