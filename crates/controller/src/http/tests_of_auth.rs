// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of authentication: callers as headers and addresses identify them, and audit entries of requests that break
//! off, that cannot be recorded, or whose response is not read to its end.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::oneshot;
use tower::ServiceExt;

use super::*;
use crate::http;
use crate::http::throttle::FAILURES_MAX;
use crate::settings::listeners::Listener;
use crate::tests::{Controller, DEADLINE, rows, temp_dir};

#[test]
fn a_token_is_a_bearers_or_the_password_of_basic_which_no_other_sites_page_may_use() {
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let bearer = || "Bearer abc".to_owned();
    for (authorization, site, expected) in [
        (bearer(), None, Some("abc")),
        ("bearer   abc ".into(), None, Some("abc")),
        // A page has to know a bearer token: the browser does not add it.
        (bearer(), Some("cross-site"), Some("abc")),
        (basic("ada:abc"), None, Some("abc")),
        (basic(":abc").replace("Basic", "BASIC"), None, Some("abc")),
        (basic("ada:a:b"), None, Some("a:b")),
        (basic("ada:abc"), Some("same-origin"), Some("abc")),
        // The user typed the address.
        (basic("ada:abc"), Some("none"), Some("abc")),
        (basic("ada:abc"), Some("same-site"), None),
        (basic("ada:abc"), Some("cross-site"), None),
        (basic("ada:abc"), Some("new"), None),
        (basic("abc"), None, None),
        ("Basic abc!".into(), None, None),
        (basic("ada:abc").replace("Basic", "Digest"), None, None),
        ("Token abc".into(), None, None),
        ("Bearer".into(), None, None),
        ("abc".into(), None, None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        if let Some(site) = site {
            headers.insert("sec-fetch-site", site.parse().unwrap());
        }
        assert_eq!(
            token(&headers, &Extensions::new()).as_deref(),
            expected,
            "{authorization} {site:?}"
        );
    }
    assert_eq!(token(&HeaderMap::new(), &Extensions::new()), None);
}

fn router(controller: &Controller) -> Router {
    http::router(controller.app.clone(), &Listener::ALL)
}

/// Sends a request as if from this address; returns the status.
async fn ask(router: &Router, from: Option<&str>, request: request::Builder) -> u16 {
    let mut request = request.body(Body::empty()).unwrap();
    if let Some(from) = from {
        let from = SocketAddr::new(from.parse().unwrap(), 1);
        request.extensions_mut().insert(ConnectInfo(from));
    }
    router.clone().oneshot(request).await.unwrap().status().as_u16()
}

fn bearing(token: &str, method: &str, path: &str) -> request::Builder {
    Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"))
}

/// Creates a reader's token and returns its text.
async fn reader(controller: &Controller) -> String {
    let new = json!({"role": "reader", "name": "watcher"});
    let made = controller.request("POST", "/api/v1/tokens").json(&new).send().await.unwrap();
    let made: serde_json::Value = made.json().await.unwrap();
    made["secret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn wrong_tokens_are_counted_by_address_and_nothing_else_is() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let (router, admin) = (router(&controller), controller.admin_token());
    let reader = reader(&controller).await;
    let jobs = || Request::get("/api/v1/jobs");
    let webhook =
        || Request::post("/api/v1/status-webhook/SN1").header("x-webhook-secret", "wrong");
    let wrong = || bearing("wrong", "GET", "/api/v1/jobs");
    let machine = || bearing("wrong", "POST", "/api/v1/node/attempts/a1/hello");
    let denied = || bearing(&reader, "DELETE", "/api/v1/servers/SN1");
    type Asks<'a> = &'a dyn Fn() -> request::Builder;
    let cases: [(&str, Asks, u16, &str, u16); 9] = [
        ("192.0.2.1", &wrong, 401, "192.0.2.1", 429),
        ("192.0.2.2", &webhook, 401, "192.0.2.2", 429),
        ("192.0.2.3", &machine, 401, "192.0.2.3", 429),
        ("::ffff:192.0.2.4", &wrong, 401, "192.0.2.4", 429),
        // A caller without a token does not guess, and a caller that is not permitted is known.
        ("192.0.2.5", &jobs, 401, "192.0.2.5", 200),
        ("192.0.2.6", &denied, 403, "192.0.2.6", 200),
        // All clients behind a proxy on this host have these addresses.
        ("127.0.0.1", &wrong, 401, "127.0.0.1", 200),
        ("::1", &wrong, 401, "::1", 200),
        ("::ffff:127.0.0.1", &wrong, 401, "127.0.0.1", 200),
    ];
    for (from, asks, status, later, expected) in cases {
        for _ in 0..FAILURES_MAX {
            assert_eq!(ask(&router, Some(from), asks()).await, status, "{from}");
        }
        let good = bearing(&admin, "GET", "/api/v1/jobs");
        assert_eq!(ask(&router, Some(later), good).await, expected, "{from}");
    }
}

#[tokio::test]
async fn the_audit_log_tells_what_was_asked_and_from_where() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let (router, admin) = (router(&controller), controller.admin_token());
    let long = format!("/api/v1/servers/{}", "x".repeat(600));
    let attempt = format!("/api/v1/node/attempts/{}/hello", "y".repeat(600));
    let none = "/api/v1/servers/NONE";
    for (from, method, path) in [
        (None, "DELETE", none),
        (Some("192.0.2.9"), "DELETE", none),
        (Some("::ffff:192.0.2.9"), "DELETE", none),
        (Some("2001:db8::9"), "DELETE", long.as_str()),
        (Some("192.0.2.9"), "GET", none),
        // An unknown caller: a machine without its token.
        (Some("192.0.2.9"), "POST", attempt.as_str()),
    ] {
        ask(&router, from, bearing(&admin, method, path)).await;
    }
    let made = reader(&controller).await;
    let entries = controller.app.store.audit(0, 100).await.unwrap();
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.from.as_deref(), entry.target.as_str(), entry.route.as_str()))
        .collect();
    let token = format!("/api/v1/tokens/{}", tokens::id(&made).unwrap());
    let route = "/api/v1/servers/{serial}";
    let expected = [
        (None, none, route),
        (Some("192.0.2.9"), none, route),
        (Some("192.0.2.9"), none, route),
        (Some("2001:db8::9"), &long[..TARGET_CHARS_MAX], route),
        // The entry of something created has its path.
        (None, &token, "/api/v1/tokens"),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_made_up_secret_behind_a_known_id_opens_nothing() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let router = router(&controller);
    let good = reader(&controller).await;
    // Every reader of the audit log knows ids, and checksums are no secret.
    let body = format!("shp_reader_{}_{}", tokens::id(&good).unwrap(), "00".repeat(32));
    let forged = format!("{body}{}", &hex::encode(sha256(body.as_bytes()))[..8]);
    assert_eq!(tokens::id(&forged), tokens::id(&good));
    for (token, expected) in [(&good, 200), (&forged, 401)] {
        assert_eq!(ask(&router, None, bearing(token, "GET", "/api/v1/jobs")).await, expected);
    }
}

#[tokio::test]
async fn without_authentication_everyone_is_an_admin_called_anyone() {
    let dir = temp_dir();
    let controller = Controller::start_with(dir.path(), |settings| settings.no_auth = true).await;
    let router = router(&controller);
    for request in [
        Request::delete("/api/v1/servers/NONE"),
        bearing("wrong", "DELETE", "/api/v1/servers/NONE"),
    ] {
        assert_eq!(ask(&router, None, request).await, 404);
    }
    let by_page = Request::delete("/api/v1/servers/NONE").header("origin", "https://evil.example");
    assert_eq!(ask(&router, None, by_page).await, 401);
    let entries = controller.app.store.audit(0, 100).await.unwrap();
    let seen: Vec<_> = entries.iter().map(|entry| (&*entry.who, &*entry.role)).collect();
    assert_eq!(seen, [("anyone", "admin"); 2]);
}

fn entry() -> NewAuditEntry {
    NewAuditEntry {
        who: "admin-token".into(),
        role: "admin",
        method: "POST".into(),
        route: "/".into(),
        target: "/".into(),
        from: None,
        status: 0,
    }
}

/// Waits for the first audit entry, and returns its status.
async fn noted(app: &App) -> u16 {
    let mut commits = app.store.commits();
    let first = async {
        loop {
            if let Some(entry) = app.store.audit(0, 10).await.unwrap().first() {
                return entry.status;
            }
            commits.changed().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, first).await.expect("it is noted")
}

#[tokio::test]
async fn what_is_under_way_is_done_and_noted_though_nobody_waits_for_the_answer() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let app = controller.app.clone();
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel();
    let work = async move {
        begun.send(()).unwrap();
        may_go_on.await.unwrap();
        StatusCode::NO_CONTENT.into_response()
    };
    let asked = tokio::spawn(carry_out(app.clone(), entry(), None, true, work));
    has_begun.await.unwrap();
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    assert_eq!(noted(&app).await, 204);
    assert_eq!(app.store.record_interrupted().await.unwrap(), 0);
}

#[tokio::test]
async fn who_goes_away_while_it_is_noted_that_they_begin_leaves_nothing_half_done() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let app = controller.app.clone();
    let work = async { StatusCode::NO_CONTENT.into_response() };
    assert!(carry_out(app.clone(), entry(), None, true, work).now_or_never().is_none());
    assert_eq!(noted(&app).await, 204);
    // Otherwise the next start would record that the end of the process interrupted it.
    assert_eq!(app.store.record_interrupted().await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_is_done_that_cannot_be_noted_before_and_what_is_done_stays() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let (router, admin) = (router(&controller), controller.admin_token());
    let reader = reader(&controller).await;
    let store = &controller.app.store;
    store.put_server(rows::server("SN1")).await.unwrap();
    let file = rusqlite::Connection::open(dir.path().join("data/shoal.sqlite")).unwrap();
    let refuse = |table: &str| {
        let sql = format!(
            "DROP TRIGGER IF EXISTS broken; CREATE TRIGGER broken BEFORE INSERT ON {table}
             BEGIN SELECT RAISE(ABORT, 'broken'); END"
        );
        file.execute_batch(&sql).unwrap();
    };
    let path = "/api/v1/servers/SN1";
    refuse("begun_requests");
    assert_eq!(ask(&router, None, bearing(&admin, "DELETE", path)).await, 503);
    assert!(store.server("SN1").await.is_ok());
    // A refusal needs no audit entry in advance.
    assert_eq!(ask(&router, None, bearing(&reader, "DELETE", path)).await, 403);
    refuse("audit");
    assert_eq!(ask(&router, None, bearing(&admin, "DELETE", path)).await, 204);
    assert!(store.server("SN1").await.is_err());
}
