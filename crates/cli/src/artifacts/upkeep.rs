// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry's upkeep: garbage collection, scrub, export and import.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use super::bar::bar;
use super::push;
use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{say, show, text};
use crate::text_file;

pub fn delete(client: &Client, name: &str) -> Result<(), Failure> {
    let (repository, tag) = push::parse(name)?;
    client.delete(&format!("/v2/{repository}/manifests/{tag}")).map(drop)
}

/// `uploads`: also removes all open uploads.
pub fn collect(client: &Client, format: Output, uploads: bool) -> Result<(), Failure> {
    let place = format!("/api/v1/artifacts/gc?uploads={uploads}");
    let done = client.post(&place, &[], &json!({}))?;
    show(format, &done, &["WHAT", "COUNT"], counts);
    Ok(())
}

/// Returns exit status 1 if content is corrupt, so that a timer can raise an alarm.
pub fn scrub(client: &Client, format: Output) -> Result<(), Failure> {
    let done = client.post("/api/v1/artifacts/scrub", &[], &json!({}))?;
    show(format, &done, &["WHAT", "COUNT"], counts);
    let bad: Vec<String> = ["rotten", "missing"]
        .iter()
        .flat_map(|key| done[*key].as_array().into_iter().flatten())
        .map(|digest| text(digest, ""))
        .collect();
    if bad.is_empty() {
        return Ok(());
    }
    Err(anyhow!("push these again: {}", bad.join(" ")).into())
}

pub fn export(
    client: &Client,
    names: &[String],
    maintenance_iso: bool,
    output: &Path,
) -> Result<(), Failure> {
    let mut query: Vec<String> = Vec::new();
    for name in names {
        push::parse(name)?;
        query.push(format!("name={name}"));
    }
    if maintenance_iso {
        query.push("maintenance-iso".into());
    }
    let mut bundle = client.stream(&format!("/api/v1/artifacts/export?{}", query.join("&")))?;
    // The file gets its name only when it is complete.
    let partial = output.with_extension("partial");
    let mut file =
        File::create(&partial).with_context(|| format!("create {}", partial.display()))?;
    let bar = bar("export", 0);
    io::copy(&mut bar.wrap_read(&mut bundle), &mut file)
        .with_context(|| format!("write {}", partial.display()))?;
    bar.finish_and_clear();
    file.sync_all()
        .and_then(|()| std::fs::rename(&partial, output))
        .with_context(|| format!("finish {}", output.display()))?;
    say(&output.display().to_string());
    Ok(())
}

pub fn import(client: &Client, format: Output, bundle: &Path) -> Result<(), Failure> {
    let file = text_file::open(bundle)?;
    let size = file.metadata().with_context(|| format!("read {}", bundle.display()))?.len();
    let bar = bar("import", size);
    let mut reader = bar.wrap_read(file);
    let done =
        client.post_bytes("/api/v1/artifacts/import", "application/x-tar", size, &mut reader)?;
    bar.finish_and_clear();
    show(format, &done, &["IMPORTED"], |done| {
        let tags = done["tags"].as_array().into_iter().flatten().map(|tag| text(tag, ""));
        let iso = Some(text(done, "/maintenance_iso")).filter(|place| !place.is_empty());
        let iso = iso.map(|place| format!("{place} (start the controller with --maintenance-iso)"));
        tags.chain(iso).map(|line| vec![line]).collect()
    });
    Ok(())
}

/// Makes a row of each number or list in a response.
fn counts(done: &Value) -> Vec<Vec<String>> {
    let shown = |value: &Value| match value {
        Value::Array(items) => items.len().to_string(),
        other => text(other, ""),
    };
    done.as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| vec![key.replace('_', " "), shown(value)])
        .collect()
}
