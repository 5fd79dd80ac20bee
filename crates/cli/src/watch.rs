// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal job watch`: a job's events as they come and, on a terminal, the progress of its step.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::args::Output;
use crate::client::{Client, encoded};
use crate::failure::{FailedJob, Failure};
use crate::output::{closed, json_line, note, printable, say, text, time};

/// Pause between two tries while the controller cannot be reached.
const RECONNECT: Duration = Duration::from_secs(2);
/// The interval at which a machine reports its progress.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Prints the events as they come, across restarts of the controller.
pub fn watch(client: &Client, format: Output, id: &str) -> Result<(), Failure> {
    let bar = bar(format);
    let is_over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        if !bar.is_hidden() {
            scope.spawn(|| show_progress(client, id, &bar, &is_over));
        }
        let outcome = follow(client, format, id, &bar);
        is_over.store(true, Ordering::Relaxed);
        outcome
    });
    // Only after its thread has ended, which would otherwise draw the bar again over the next line.
    bar.finish_and_clear();
    outcome
}

/// Shows no bar if standard error is not a terminal, or with JSON output.
fn bar(format: Output) -> ProgressBar {
    let template = "{prefix} [{bar:30}] {bytes}/{total_bytes} {msg}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::no_length().with_style(style);
    if format == Output::Json {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Draws the step's bytes until the watch is over. A failed request is ignored, because the next one may succeed.
fn show_progress(client: &Client, id: &str, bar: &ProgressBar, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        if let Ok(job) = client.get(&format!("/api/v1/jobs/{}", encoded(id))) {
            let progress = &job["progress"];
            let number = |key: &str| progress[key].as_u64().unwrap_or(0);
            if number("bytes_total") > 0 {
                bar.set_prefix(printable(&text(progress, "/step")).into_owned());
                bar.set_length(number("bytes_total"));
                bar.set_position(number("bytes_done"));
                bar.set_message(format!("{}/s", indicatif::BinaryBytes(number("bytes_per_sec"))));
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn follow(client: &Client, format: Output, id: &str, bar: &ProgressBar) -> Result<(), Failure> {
    let path = format!("/api/v1/jobs/{}/events", encoded(id));
    let mut last = 0;
    let mut is_away = false;
    let mut after = AfterFailure::default();
    loop {
        match client.events(&path, last) {
            Ok(stream) => {
                is_away = false;
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(data) = line.strip_prefix("data:") {
                        let Ok(event) = serde_json::from_str::<Value>(data.trim()) else {
                            continue;
                        };
                        bar.suspend(|| tell(format, &event));
                        after.hear(&event);
                        last = event["seq"].as_u64().unwrap_or(last).max(last);
                    }
                    if closed().is_some() {
                        return Ok(());
                    }
                }
            }
            Err(Failure::Unreachable(why)) if last > 0 => {
                if !is_away {
                    note(&format!("{why}; waiting for the controller"));
                }
                is_away = true;
                std::thread::sleep(RECONNECT);
                continue;
            }
            Err(failure) => return Err(failure),
        }
        let Ok(job) = client.get(&format!("/api/v1/jobs/{}", encoded(id))) else { continue };
        if job["status"] != "complete" {
            continue;
        }
        if job["outcome"] == "failed" {
            return Err(Failure::JobFailed(Box::new(FailedJob {
                id: text(&job, "/id"),
                step: text(&job, "/failed_step"),
                reason: text(&job, "/reason"),
                done: after.done,
                not_done: after.not_done,
                needs_attention: text(&job, "/needs_attention"),
            })));
        }
        return Ok(());
    }
}

/// What the controller did to the machine after the job had failed.
#[derive(Default)]
struct AfterFailure {
    has_failed: bool,
    done: Vec<String>,
    not_done: Vec<String>,
}

impl AfterFailure {
    fn hear(&mut self, event: &Value) {
        if self.has_failed {
            match event["kind"].as_str() {
                Some("done") => self.done.push(text(event, "/message")),
                Some("gave_up") => self.not_done.push(text(event, "/message")),
                _ => {}
            }
        }
        // The first event with this status is the one that failed the job. A job that had not touched its machine is
        // complete at once.
        self.has_failed |= matches!(event["status"].as_str(), Some("failed" | "complete"));
    }
}

/// Prints one event.
fn tell(format: Output, event: &Value) {
    match format {
        Output::Json => json_line(event),
        Output::Text => {
            let part = |key: &str| printable(&text(event, &format!("/{key}"))).into_owned();
            let time = time(&part("at"));
            say(&format!("{time}  {:<14} {:<26} {}", part("kind"), part("step"), part("message")));
        }
    }
}
