// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal job`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use api::jobs::NewJob;
use serde_json::{Value, json};

use crate::args::{Job, Output};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::{self, say, show, text};
use crate::watch::watch;

const HEAD: [&str; 6] = ["ID", "SERVER", "STATUS", "STAGE", "OUTCOME", "FAILED STEP"];

pub fn run(client: &Client, format: Output, command: Job) -> Result<(), Failure> {
    match command {
        Job::Create { server, recipe, idempotency_key, watch: is_watched, plan: is_plan } => {
            let bytes = fs::read(&recipe).with_context(|| format!("read {}", recipe.display()))?;
            let recipe = serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not JSON", recipe.display()))?;
            let new = NewJob { server_serial: server, recipe };
            if is_plan {
                let plan = client.post("/api/v1/jobs?mode=plan", &[], &new)?;
                show(format, &plan, &["CHECK", "RESULT", "DETAIL"], checks);
                return if plan["is_ready"] == true { Ok(()) } else { Err(Failure::NotReady) };
            }
            let headers: Vec<(&str, &str)> =
                idempotency_key.iter().map(|key| ("idempotency-key", key.as_str())).collect();
            let job = client.post("/api/v1/jobs", &headers, &new)?;
            if is_watched {
                return watch(client, format, &text(&job, "/id"));
            }
            show(format, &job, &HEAD, |job| vec![row(job)]);
        }
        Job::List { server, status } => {
            let query: Vec<String> = [("server", server), ("status", status)]
                .into_iter()
                .filter_map(|(name, value)| Some(format!("{name}={}", encoded(&value?))))
                .collect();
            let list = client.get(&format!("/api/v1/jobs?{}", query.join("&")))?;
            show(format, &list, &HEAD, |list| {
                list["jobs"].as_array().into_iter().flatten().map(row).collect()
            });
        }
        Job::Show { id } => {
            let job = client.get(&format!("/api/v1/jobs/{}", encoded(&id)))?;
            match format {
                Output::Json => output::json(&job),
                Output::Text => describe(&job),
            }
        }
        Job::Evidence { id, file } => {
            let path = file.unwrap_or_else(|| PathBuf::from(format!("evidence-{id}.tar")));
            let mut archive = client.stream(&format!("/api/v1/jobs/{}/evidence", encoded(&id)))?;
            let mut file =
                fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
            std::io::copy(&mut archive, &mut file)
                .with_context(|| format!("write {}", path.display()))?;
            let told = json!({"file": path});
            show(format, &told, &["FILE"], |told| vec![vec![text(told, "/file")]]);
        }
        Job::Watch { id } => return watch(client, format, &id),
        Job::Cancel { id } => {
            let job =
                client.post(&format!("/api/v1/jobs/{}/cancel", encoded(&id)), &[], &json!({}))?;
            show(format, &job, &HEAD, |job| vec![row(job)]);
        }
    }
    Ok(())
}

fn checks(plan: &Value) -> Vec<Vec<String>> {
    let line = |check: &Value| {
        ["name", "result", "detail"].map(|key| text(check, &format!("/{key}"))).to_vec()
    };
    let mut rows: Vec<Vec<String>> =
        plan["checks"].as_array().into_iter().flatten().map(line).collect();
    if let Some(secs) = plan["expected_seconds"].as_u64() {
        let took = format!("{} min {} s, as the last jobs", secs / 60, secs % 60);
        rows.push(vec!["duration".into(), String::new(), took]);
    }
    rows
}

fn row(job: &Value) -> Vec<String> {
    ["id", "server_serial", "status", "stage", "outcome", "failed_step"]
        .iter()
        .map(|key| text(job, &format!("/{key}")))
        .collect()
}

fn describe(job: &Value) {
    for key in [
        "id",
        "server_serial",
        "task_target",
        "status",
        "stage",
        "outcome",
        "failed_step",
        "reason",
        "cleanup_problem",
        "needs_attention",
        "created_at",
        "updated_at",
    ] {
        let text = text(job, &format!("/{key}"));
        if !text.is_empty() {
            say(&format!("{key:<16} {text}"));
        }
    }
    if job["progress"].is_object() {
        let part = |key: &str| text(job, &format!("/progress/{key}"));
        say(&format!("{:<16} {} {}", "progress", part("step"), part("message")));
    }
}
