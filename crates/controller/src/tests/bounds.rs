// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the limits on what a machine, its readers and an invalid token can make a controller store or build.

use std::io::Read;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::rows;
use crate::http;
use crate::http::App;
use crate::keys::sha256;
use crate::serve::{build, install_crypto};
use crate::store::{NewJobRow, Retention};

/// A controller without a driver, with the job `j1` whose machine is awaited.
struct World {
    app: App,
    router: Router,
    admin: String,
}

impl World {
    async fn new(dir: &std::path::Path) -> World {
        install_crypto();
        let app = build(super::settings(dir, ([127, 0, 0, 1], 1).into())).unwrap();
        app.store.put_server(rows::server("SN1")).await.unwrap();
        let token_hash = sha256(app.keys.attempt_token("a1").as_bytes());
        let job = NewJobRow { token_hash, ..rows::job("j1", "SN1", "a1") };
        app.store.create_job(job).await.unwrap();
        for event in rows::until_awaited() {
            app.store.apply("j1", None, event, "moved".into(), 0).await.unwrap();
        }
        let router = http::router(app.clone(), &app.settings.sockets[0].serves);
        let admin = std::fs::read_to_string(app.settings.data_dir.join("admin-token")).unwrap();
        World { app, router, admin: admin.trim().to_owned() }
    }

    async fn get(&self, path: &str, accept: &str) -> Response {
        let request = Request::get(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.admin))
            .header(header::ACCEPT, accept)
            .body(Body::empty());
        self.router.clone().oneshot(request.unwrap()).await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path, "*/*").await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        serde_json::from_slice(&to_bytes(answer.into_body(), usize::MAX).await.unwrap()).unwrap()
    }

    /// Sends a message of the machine and returns the status.
    async fn say(&self, what: &str, token: &str, body: &Value) -> StatusCode {
        let body = body.to_string();
        let request = Request::post(format!("/api/v1/node/attempts/a1/{what}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from(body));
        self.router.clone().oneshot(request.unwrap()).await.unwrap().status()
    }

    async fn hello(&self, boot_id: &str) -> StatusCode {
        let hello = json!({
            "boot_id": boot_id,
            "dmi": {"serial": "SN1", "uuid": ""},
            "version": "1",
            "session_sha256": super::session_sha256(boot_id),
        });
        self.say("hello", &self.app.keys.attempt_token("a1"), &hello).await
    }

    /// The machine logs so many messages of long lines of control characters.
    async fn log(&self, messages: u64) {
        assert_eq!(self.hello("b1").await, StatusCode::NO_CONTENT);
        let lines = vec!["\u{1}".repeat(2000); 200];
        for seq in 1..=messages {
            let log = json!({"seq": seq, "step": "s.service", "lines": lines});
            let status = self.say("log", &super::session_token("b1"), &log).await;
            assert_eq!(status, StatusCode::NO_CONTENT);
        }
    }
}

#[tokio::test]
async fn the_evidence_of_a_job_that_logged_too_much_is_a_whole_archive_of_bounded_size() {
    let dir = super::temp_dir();
    let world = World::new(dir.path()).await;
    world.log(8).await;
    world.app.jobs.evidence.append("j1", crate::jobs::evidence::MEDIA_READS, ["a read"]);
    let answer = world.get("/api/v1/jobs/j1/evidence", "*/*").await;
    let archive = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    assert!(archive.len() < 10 << 20, "{} bytes", archive.len());
    let mut tar = tar::Archive::new(&archive[..]);
    let mut files = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.push((name, bytes));
    }
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["job.json", "events.json", "controller.json", "media-reads.jsonl"];
    assert_eq!(names, expected.map(|name| format!("evidence-j1/{name}")));
    let events: Vec<api::jobs::JobEvent> = serde_json::from_slice(&files[1].1).unwrap();
    assert_eq!(events, world.app.store.events("j1", 0, 100_000).await.unwrap());
    assert!(events.iter().any(|event| event.kind == "dropped"));
    assert_eq!(files[3].1, b"\"a read\"\n");
}

#[tokio::test]
async fn lists_of_events_come_in_pages_none_of_which_is_long() {
    let dir = super::temp_dir();
    let world = World::new(dir.path()).await;
    world.log(2).await;
    let (mut seen, mut after, mut pages) = (0, 0, 0);
    loop {
        let page = world.json(&format!("/api/v1/jobs/j1/events?after={after}")).await;
        assert!(page.to_string().len() < (1 << 20) + 30_000);
        let events = page["events"].as_array().unwrap();
        seen += events.len();
        pages += 1;
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, world.app.store.events("j1", 0, 100_000).await.unwrap().len());
    assert!(pages > 3, "{pages} pages");
    let beyond = world.json(&format!("/api/v1/jobs/j1/events?after={}", i64::MAX)).await;
    assert_eq!(beyond, json!({"events": []}));
}

#[tokio::test]
async fn readers_of_one_job_are_counted_and_the_next_is_told_to_come_again() {
    let dir = super::temp_dir();
    let world = World::new(dir.path()).await;
    for (path, accept, most) in [
        ("/api/v1/jobs/j1/events", "text/event-stream", 16),
        ("/api/v1/jobs/j1/events", "application/json", 4),
        ("/api/v1/jobs/j1/evidence", "*/*", 2),
    ] {
        let mut open = Vec::new();
        for number in 0..most {
            let answer = world.get(path, accept).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path} {number}");
            open.push(answer);
        }
        let refused = world.get(path, accept).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{path} as {accept}");
        assert_eq!(refused.headers()[header::RETRY_AFTER], "2");
        let problem = to_bytes(refused.into_body(), usize::MAX).await.unwrap();
        let problem: Value = serde_json::from_slice(&problem).unwrap();
        assert_eq!(problem["type"], "urn:shoal:problem:too-many-readers");
        drop(open);
        assert_eq!(world.get(path, accept).await.status(), StatusCode::OK, "{path} as {accept}");
    }
}

#[tokio::test]
async fn an_attempt_has_a_bounded_number_of_boots_and_one_more_ends_it() {
    let dir = super::temp_dir();
    let world = World::new(dir.path()).await;
    for boot in 0..16 {
        let status = world.hello(&format!("b{boot}")).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{boot}");
    }
    assert_eq!(world.hello("one-too-many").await, StatusCode::GONE);
    let job = world.json("/api/v1/jobs/j1").await;
    assert_eq!(job["failed_step"], "node.too-many-boots");
    assert_eq!(world.hello("b15").await, StatusCode::GONE);
}

#[tokio::test]
async fn a_token_whose_attempt_is_over_fills_neither_the_audit_log_nor_the_sessions() {
    let dir = super::temp_dir();
    let world = World::new(dir.path()).await;
    let cancel = job::Event::Cancelled;
    world.app.store.apply("j1", None, cancel, "cancelled".into(), 0).await.unwrap();
    let mut statuses = Vec::new();
    for boot in 0..610 {
        statuses.push(world.hello(&format!("b{boot}")).await.as_u16());
    }
    assert_eq!(statuses[..600], [410; 600]);
    assert_eq!(statuses[600..], [429; 10]);
    let noted = world.app.store.audit(0, 1000).await.unwrap();
    assert_eq!(noted.len(), 5, "{noted:?}");
    http::write_refusals(&world.app.refusals, &world.app.store).await;
    let noted = world.app.store.audit(5, 1000).await.unwrap();
    let told: Vec<_> = noted.iter().map(|entry| (entry.status, entry.repeats)).collect();
    assert_eq!(told, [(410, Some(595))]);
    // Others are served as before.
    world.json("/api/v1/jobs/j1").await;
}

#[tokio::test]
async fn a_reader_that_asks_for_what_it_may_not_waits_after_a_while_and_is_noted_a_few_times() {
    let dir = super::temp_dir();
    let world = World::new(dir.path()).await;
    let mut statuses = Vec::new();
    let body = json!({"role": "reader", "name": "r"}).to_string();
    let request = Request::post("/api/v1/tokens")
        .header(header::AUTHORIZATION, format!("Bearer {}", world.admin))
        .body(Body::from(body));
    let made = world.router.clone().oneshot(request.unwrap()).await.unwrap();
    let made = to_bytes(made.into_body(), usize::MAX).await.unwrap();
    let made: Value = serde_json::from_slice(&made).unwrap();
    for number in 0..610 {
        let request = Request::delete(format!("/api/v1/tokens/{number}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", made["secret"].as_str().unwrap()))
            .body(Body::empty());
        let answer = world.router.clone().oneshot(request.unwrap()).await.unwrap();
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses[..600], [403; 600]);
    assert_eq!(statuses[600..], [429; 10]);
    // The token's own creation, and five of the refusals.
    assert_eq!(world.app.store.audit(0, 1000).await.unwrap().len(), 6);
}

#[tokio::test]
async fn an_audit_log_whose_oldest_entries_went_says_where_it_begins() {
    let dir = super::temp_dir();
    let world = World::new(dir.path()).await;
    for _ in 0..20 {
        world.app.store.record(rows::entry(202), None, 0).await.unwrap();
    }
    let whole = world.json("/api/v1/audit").await;
    assert_eq!(whole["anchor"], Value::Null);
    let keep = Retention { since: 0, entries_max: 16 };
    assert_eq!(world.app.store.trim_audit(keep, 0).await.unwrap(), 6);
    let page = world.json("/api/v1/audit").await;
    assert_eq!(page["anchor"], json!({"seq": 6, "hash": whole["entries"][5]["hash"]}));
    let last = page["entries"].as_array().unwrap().last().unwrap();
    let entry: api::access::AuditEntry = serde_json::from_value(last.clone()).unwrap();
    assert_eq!(entry.removed().map(|anchor| anchor.seq), Some(6));
    // Pages that begin later do not have it.
    assert_eq!(world.json("/api/v1/audit?after=10").await["anchor"], Value::Null);
}
