// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal job`: creating, listing, showing and cancelling jobs, and their evidence.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, anyhow};
use api::jobs::NewJob;
use serde_json::{Value, json};

use crate::args::{Job, ListJobs, Output, Which};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::{self, note, say, show, text, time};
use crate::recipes;
use crate::watch::watch;

const HEAD: [&str; 6] = ["ID", "SERVER", "STATUS", "STAGE", "OUTCOME", "FAILED STEP"];

const LIST_HEAD: [&str; 5] = ["ID", "SERVER", "CREATED", "STATE", "WHY"];
/// Returns the time in a version 7 UUID, to the millisecond (RFC 9562, section 5.7).
const ID_SHOWN_MIN: usize = 13;

pub fn run(client: &Client, format: Output, command: Job) -> Result<(), Failure> {
    match command {
        Job::Create {
            server,
            recipe,
            idempotency_key,
            watch: is_watched,
            plan: is_plan,
            eject_foreign,
        } => {
            let recipe = recipes::read(&recipe)?;
            let new = NewJob { server_serial: server, recipe, eject_foreign };
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
        Job::List(wanted) => {
            let list = list(client, &wanted)?;
            show(format, &list, &LIST_HEAD, list_rows);
        }
        Job::Show(which) => {
            let job = find(client, which)?;
            match format {
                Output::Json => output::json(&job),
                Output::Text => describe(&job),
            }
        }
        Job::Evidence { which, file } => {
            let id = text(&find(client, which)?, "/id");
            let path = file.unwrap_or_else(|| PathBuf::from(format!("evidence-{id}.tar")));
            let mut archive = client.stream(&format!("/api/v1/jobs/{}/evidence", encoded(&id)))?;
            let mut file =
                fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
            std::io::copy(&mut archive, &mut file)
                .with_context(|| format!("write {}", path.display()))?;
            let told = json!({"file": path});
            show(format, &told, &["FILE"], |told| vec![vec![text(told, "/file")]]);
        }
        Job::Watch(which) => return watch(client, format, &text(&find(client, which)?, "/id")),
        Job::Cancel(which) => {
            let id = text(&find(client, which)?, "/id");
            let job =
                client.post(&format!("/api/v1/jobs/{}/cancel", encoded(&id)), &[], &json!({}))?;
            show(format, &job, &HEAD, |job| vec![row(job)]);
        }
    }
    Ok(())
}

/// Finds the job by the beginning of its id; the controller resolves it.
fn find(client: &Client, which: Which) -> Result<Value, Failure> {
    let Some(serial) = which.server else {
        return client.get(&format!("/api/v1/jobs/{}", encoded(&which.id.unwrap_or_default())));
    };
    let list = client.get(&format!("/api/v1/jobs?limit=1&server={}", encoded(&serial)))?;
    match list.pointer("/jobs/0") {
        Some(job) => client.get(&format!("/api/v1/jobs/{}", encoded(&text(job, "/id")))),
        None => Err(anyhow!("server {serial} has no job yet").into()),
    }
}

/// Reads as many pages as needed.
fn list(client: &Client, wanted: &ListJobs) -> Result<Value, Failure> {
    let mut jobs = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let left = (wanted.count() - jobs.len()).to_string();
        let query: Vec<String> = [
            ("server", wanted.server.as_deref()),
            ("status", wanted.status.as_deref()),
            ("cursor", cursor.as_deref()),
            ("limit", Some(&*left)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value?))))
        .collect();
        let page = client.get(&format!("/api/v1/jobs?{}", query.join("&")))?;
        jobs.extend(page["jobs"].as_array().into_iter().flatten().cloned());
        jobs.truncate(wanted.count());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || jobs.len() >= wanted.count() {
            break;
        }
    }
    let mut list = json!({"jobs": jobs});
    if let Some(cursor) = cursor {
        if !wanted.last {
            note(&format!("there are older jobs; --limit {} shows more", 2 * wanted.count()));
        }
        list["next_cursor"] = json!(cursor);
    }
    Ok(list)
}

fn list_rows(list: &Value) -> Vec<Vec<String>> {
    let jobs: Vec<&Value> = list["jobs"].as_array().into_iter().flatten().collect();
    let ids: Vec<String> = jobs.iter().map(|job| text(job, "/id")).collect();
    let shown = shortened(&ids);
    let row = |(job, id): (&&Value, String)| {
        let part = |key| text(job, key);
        let [status, stage, outcome] = ["/status", "/stage", "/outcome"].map(part);
        // The outcome says more than "complete", and the stage says more than "provisioning".
        let state = match (outcome.is_empty(), status == "complete") {
            (false, true) => outcome,
            (false, false) => format!("{outcome}, {stage}"),
            (true, _) => stage,
        };
        let why = [part("/failed_step"), part("/reason")];
        let why: Vec<String> = why.into_iter().filter(|text| !text.is_empty()).collect();
        vec![id, part("/server_serial"), time(&part("/created_at")), state, why.join(": ")]
    };
    jobs.iter().zip(shown).map(row).collect()
}

/// Shortens each id: no other id in the list begins so, and it is unlikely that any other does.
fn shortened(ids: &[String]) -> Vec<String> {
    let short = |id: &String| {
        let common =
            |other: &String| id.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
        let others = ids.iter().filter(|other| *other != id);
        let needed = others.map(|other| common(other) + 1).max().unwrap_or(0);
        id.get(..needed.max(ID_SHOWN_MIN)).unwrap_or(id).to_owned()
    };
    ids.iter().map(short).collect()
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
        let text = if key.ends_with("_at") { time(&text) } else { text };
        if !text.is_empty() {
            say(&format!("{key:<16} {text}"));
        }
    }
    if job["progress"].is_object() {
        let part = |key: &str| text(job, &format!("/progress/{key}"));
        say(&format!("{:<16} {} {}", "progress", part("step"), part("message")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_when_where_and_why() {
        let list = json!({"jobs": [
            {"id": "0198b9c0-0000-7000-8000-000000000001", "server_serial": "SN1", "status": "provisioning",
             "stage": "writing", "created_at": "soon"},
            {"id": "0198b9c0-0001-7000-8000-000000000001", "server_serial": "SN2", "status": "complete",
             "stage": "complete", "outcome": "failed", "failed_step": "node.hello", "reason": "why",
             "created_at": "later"},
        ]});
        assert_eq!(
            list_rows(&list),
            [
                ["0198b9c0-0000", "SN1", "soon", "writing", ""],
                ["0198b9c0-0001", "SN2", "later", "failed", "node.hello: why"],
            ]
        );
    }

    #[test]
    fn a_shortened_id_is_the_beginning_of_one_only() {
        let ids = [
            "0198b9c0-0000-7000-8000-0a",
            "0198b9c0-0000-7000-8000-0b",
            "0198b9c1-0000-7000-8000-0a",
            "x",
        ];
        let shown = shortened(&ids.map(str::to_owned));
        assert_eq!(shown, [ids[0], ids[1], "0198b9c1-0000", "x"]);
    }
}
