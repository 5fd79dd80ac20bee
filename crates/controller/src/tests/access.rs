// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of permissions: every route is called by every kind of caller, and the audit log is checked.

use api::access::{AUDIT_BEGINNING, AuditEntry, Role, TOKEN_DAYS_MAX};
use serde_json::{Value, json};

use super::{Controller, bmc, rows, session_token, temp_dir};
use crate::access::tokens;
use crate::http::{self, App, Needs};
use crate::keys::sha256;
use crate::settings::listeners::Listener;
use crate::store::{MediumKind, NewJobRow, NewMedium, ServerRow, TokenRow};
use crate::time::now_ms;

/// A job on a server of its own, whose machine may send messages.
async fn job_of(app: &App, serial: &str, attempt: &str) {
    let url = "https://127.0.0.1:1/".to_owned();
    let server = ServerRow {
        bmc_password: app.keys.root.seal(serial, &url, "p").unwrap(),
        bmc_url: url,
        bmc_pin: Some("00".repeat(32)),
        ..rows::server(serial)
    };
    app.store.put_server(server).await.unwrap();
    let new = NewJobRow {
        token_hash: sha256(app.keys.attempt_token(attempt).as_bytes()),
        ..rows::job(&format!("job-{attempt}"), serial, attempt)
    };
    app.store.create_job(new).await.unwrap();
}

/// A token's text. The token has expired unless `lives` is above 0.
async fn token(app: &App, role: Role, lives: i64) -> String {
    let minted = tokens::mint(role).unwrap();
    let row = TokenRow {
        id: minted.id,
        role,
        name: format!("a-{}", role.as_str()),
        hash: sha256(minted.text.as_bytes()),
        pull: Vec::new(),
        push: if role == Role::Publisher { vec!["ci/".into()] } else { Vec::new() },
        created_at: now_ms(),
        expires_at: now_ms() + lives,
        last_used_at: None,
        revoked_at: None,
    };
    app.store.create_token(row).await.unwrap();
    minted.text
}

/// The routes of a reader. Listed here again, so that a mistake in the table of routes fails the test.
const READS: &[&str] = &[
    "GET /api/v1/jobs",
    "GET /api/v1/jobs/{id}",
    "GET /api/v1/jobs/{id}/events",
    "GET /api/v1/jobs/{id}/evidence",
    "GET /api/v1/servers",
    "GET /api/v1/servers/{serial}",
    "GET /api/v1/servers/{serial}/firmware/update",
    "GET /api/v1/artifacts",
];
/// The routes that an operator has in addition.
const OPERATES: &[&str] = &[
    "POST /api/v1/jobs",
    "POST /api/v1/jobs/{id}/cancel",
    "POST /api/v1/servers/{serial}/probe",
    "POST /api/v1/servers/{serial}/actions/power",
    "POST /api/v1/servers/{serial}/actions/boot",
    "GET /api/v1/servers/{serial}/capture",
    "GET /api/v1/servers/{serial}/firmware",
    "POST /api/v1/servers/{serial}/firmware",
];
/// The routes for everyone, without a token.
const OPEN: &[&str] = &[
    "GET /m/{token}/{name}",
    "HEAD /m/{token}/{name}",
    "GET /healthz",
    "GET /openapi.json",
    "GET /about/licenses",
];
/// The route that the token on the task medium permits.
const HELLO: &str = "POST /api/v1/node/attempts/{id}/hello";
/// The routes for the boot that said hello.
const NODE: &[&str] = &[
    "GET /api/v1/node/attempts/{id}/recipe",
    "POST /api/v1/node/attempts/{id}/permit",
    "POST /api/v1/node/attempts/{id}/progress",
    "POST /api/v1/node/attempts/{id}/log",
    "POST /api/v1/node/attempts/{id}/result",
];
const WEBHOOK: &str = "POST /api/v1/status-webhook/{serial}";

/// The caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Role(Role),
    AdminsFile,
    /// With the token of the task medium of the attempt in the path.
    Medium,
    OtherMedium,
    /// The boot of that attempt that said hello.
    Boot,
    PullToken,
    Expired,
    Revoked,
    MediumsToken,
    Cut,
    Webhook,
}

/// The expected status; 200 stands for any response after the guard has let the caller in.
fn expected(who: Who, route: &str) -> u16 {
    if OPEN.contains(&route) {
        return 200;
    }
    let is_allowed = match who {
        Who::Role(Role::Admin) | Who::AdminsFile => !NODE.contains(&route) && route != HELLO,
        Who::Role(Role::Operator) => READS.contains(&route) || OPERATES.contains(&route),
        Who::Role(Role::Reader) => READS.contains(&route),
        Who::Medium => route == HELLO,
        Who::Boot => NODE.contains(&route),
        Who::Webhook => route == WEBHOOK,
        Who::Role(Role::Publisher)
        | Who::Nobody
        | Who::OtherMedium
        | Who::PullToken
        | Who::Expired
        | Who::Revoked
        | Who::MediumsToken
        | Who::Cut => false,
    };
    match who {
        _ if is_allowed => 200,
        // The routes of machines do not accept a person's token at all.
        Who::Role(_) if !NODE.contains(&route) && route != HELLO => 403,
        _ => 401,
    }
}

async fn callers(app: &App) -> Vec<(Who, Option<String>)> {
    job_of(app, "SN1", "a1").await;
    job_of(app, "SN2", "a2").await;
    let mut callers = vec![(Who::Nobody, None), (Who::Webhook, None)];
    let mut add = |who, text: String| callers.push((who, Some(text)));
    for role in Role::ALL {
        add(Who::Role(role), token(app, role, 60_000).await);
    }
    let admins = std::fs::read_to_string(app.settings.data_dir.join("admin-token")).unwrap();
    add(Who::AdminsFile, admins);
    add(Who::Medium, app.keys.attempt_token("a1"));
    add(Who::OtherMedium, app.keys.attempt_token("a2"));
    for event in rows::until_awaited() {
        // The driver may have applied it first.
        let _moved = app.store.apply("job-a1", None, event, String::new(), now_ms()).await;
    }
    app.store.hello("a1", rows::boot("b1"), now_ms()).await.unwrap().unwrap();
    add(Who::Boot, session_token("b1"));
    add(Who::PullToken, app.keys.pull_token("a1"));
    add(Who::Expired, token(app, Role::Admin, 0).await);
    let revoked = token(app, Role::Admin, 60_000).await;
    app.store.revoke_token(tokens::id(&revoked).unwrap(), now_ms()).await.unwrap();
    add(Who::Revoked, revoked);
    let medium = app.keys.media_token().unwrap();
    let token_hash = sha256(medium.as_bytes());
    let hashed = vec![NewMedium { kind: MediumKind::Task, token_hash, slot: None }];
    app.store
        .issue_media("job-a1", "cd+cd", recipe::machine::Names::default(), hashed, now_ms())
        .await
        .unwrap();
    add(Who::MediumsToken, medium);
    let whole = token(app, Role::Admin, 60_000).await;
    add(Who::Cut, whole[..whole.len() - 1].to_owned());
    callers
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn everybody_may_do_what_is_listed_and_nothing_else() {
    let dir = temp_dir();
    let secret_file = dir.path().join("webhook-secret");
    std::fs::write(&secret_file, SECRET).unwrap();
    let change = |settings: &mut crate::settings::Settings| {
        settings.webhook_secret_file = Some(secret_file);
    };
    let controller = Controller::start_with(dir.path(), change).await;
    let callers = callers(&controller.app).await;
    let ask = async |who: Who, token: &Option<String>, method: &str, path: &str| {
        let url = format!("{}{path}", controller.url);
        let mut request = reqwest::Client::new().request(method.parse().unwrap(), url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if who == Who::Webhook {
            request = request.header("x-webhook-secret", SECRET);
        }
        request.send().await.unwrap().status().as_u16()
    };
    let mut cells = 0;
    for route in http::routes() {
        let name = format!("{} {}", route.method, route.path);
        // Except for the attempt nothing of this exists, so a caller that is let in changes nothing.
        let path = route.path.replace("/attempts/{id}/", "/attempts/a1/").replace(['{', '}'], "");
        for (who, token) in &callers {
            let status = ask(*who, token, route.method.as_str(), &path).await;
            let seen = if [401, 403].contains(&status) { status } else { 200 };
            assert_eq!(seen, expected(*who, &name), "{who:?} {name}: {status}");
            cells += 1;
        }
    }
    for (request, allowed) in registry_cells() {
        let (method, path) = request.split_once(' ').unwrap();
        for (who, token) in &callers {
            let status = ask(*who, token, method, path).await;
            let is_allowed = ![401, 403].contains(&status);
            assert_eq!(is_allowed, allowed.contains(who), "{who:?} {request}: {status}");
            cells += 1;
        }
    }
    println!("authorisation: {cells} cells");
    assert!(cells >= 36 * 15, "{cells}");
}

/// Requests to the registry, and the callers that may send them. A machine may pull only its job's artifact, which is
/// in another registry here.
fn registry_cells() -> Vec<(&'static str, Vec<Who>)> {
    let [publisher, reader, operator, admin] = Role::ALL.map(Who::Role);
    let known = vec![publisher, reader, operator, admin, Who::AdminsFile, Who::PullToken];
    let admins = vec![admin, Who::AdminsFile];
    vec![
        ("GET /v2/", known),
        ("GET /v2/ci/app/tags/list", vec![publisher, operator, admin, Who::AdminsFile]),
        ("GET /v2/os/app/tags/list", vec![operator, admin, Who::AdminsFile]),
        ("PUT /v2/ci/app/manifests/1", vec![publisher, admin, Who::AdminsFile]),
        ("PUT /v2/os/app/manifests/1", admins.clone()),
        ("DELETE /v2/os/app/manifests/1", admins),
    ]
}

#[test]
fn the_document_tells_the_roles_of_the_routes() {
    let document: Value = serde_json::from_str(api::openapi::DOCUMENT).unwrap();
    for route in http::routes() {
        let told = &document["paths"][route.path][route.method.as_str().to_lowercase()]["security"];
        let expected = match route.needs {
            Needs::Nothing => json!([]),
            Needs::Attempt => json!([{"attempt": []}]),
            Needs::Role(role) => json!([{"token": [role]}, {"tokenBasic": [role]}]),
            Needs::AdminOrWebhook => {
                json!([{"token": ["admin"]}, {"tokenBasic": ["admin"]}, {"webhookSecret": []}])
            }
        };
        assert_eq!(*told, expected, "{} {}", route.method, route.path);
    }
}

#[tokio::test]
async fn a_token_is_shown_once_noted_when_used_and_dead_when_revoked() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let new = json!({"role": "reader", "name": "watcher"});
    let made = controller.request("POST", "/api/v1/tokens").json(&new).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let location = made.headers()["location"].to_str().unwrap().to_owned();
    let made: Value = made.json().await.unwrap();
    let secret = made["secret"].as_str().unwrap().to_owned();
    let days = made["expires_at"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>()
        .unwrap()
        .duration_since(made["created_at"].as_str().unwrap().parse().unwrap());
    assert_eq!(days.as_hours(), 90 * 24);
    let status = async |method: &str, path: &str| {
        let url = format!("{}{path}", controller.url);
        let request = reqwest::Client::new().request(method.parse().unwrap(), url);
        let answer = request.bearer_auth(&secret).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(status("GET", "/api/v1/jobs").await.0, 200);
    let (refused, why) = status("POST", "/api/v1/jobs").await;
    assert_eq!(refused, 403);
    assert!(why.contains("has the role reader") && why.contains("the role operator"), "{why}");
    let listed = controller.get("/api/v1/tokens").await;
    let listed = &listed["tokens"][0];
    assert_eq!((&listed["id"], &listed["name"]), (&made["id"], &json!("watcher")));
    assert!(listed["last_used_at"].is_string() && listed.get("secret").is_none(), "{listed}");
    // A use a moment later is not stored, so that a read waits for no disk.
    assert_eq!(status("GET", "/api/v1/jobs").await.0, 200);
    let again = controller.get("/api/v1/tokens").await;
    assert_eq!(again["tokens"][0]["last_used_at"], listed["last_used_at"]);
    assert_eq!(location, format!("/api/v1/tokens/{}", made["id"].as_str().unwrap()));
    for _ in 0..2 {
        let revoked = controller.request("DELETE", &location).send().await.unwrap();
        assert_eq!(revoked.status(), 204);
    }
    let (refused, why) = status("GET", "/api/v1/jobs").await;
    assert_eq!(refused, 401);
    assert!(why.contains("revoked or expired"), "{why}");
    let unknown = controller.request("DELETE", "/api/v1/tokens/none").send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    // The secret is neither in the database nor in its write-ahead log.
    drop(controller);
    for file in ["shoal.sqlite", "shoal.sqlite-wal"] {
        let bytes = std::fs::read(dir.path().join("data").join(file)).unwrap_or_default();
        let digits = &secret.as_bytes()[secret.len() - 64..];
        assert!(!bytes.windows(digits.len()).any(|window| window == digits), "{file}");
    }
}

#[tokio::test]
async fn a_new_token_is_one_that_can_be_read_ends_and_opens_something() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let name = |bytes: usize| "x".repeat(bytes);
    let (reader, publisher) = (json!("reader"), json!("publisher"));
    for (new, expected) in [
        (json!({"role": reader, "name": name(1)}), 201),
        (json!({"role": reader, "name": name(64)}), 201),
        (json!({"role": reader, "name": "!~"}), 201),
        (json!({"role": reader, "name": ""}), 422),
        (json!({"role": reader, "name": name(65)}), 422),
        (json!({"role": reader, "name": "two words"}), 422),
        (json!({"role": reader, "name": "a\u{7f}"}), 422),
        (json!({"role": reader, "name": "é"}), 422),
        (json!({"role": reader, "name": "x", "days": 1}), 201),
        (json!({"role": reader, "name": "x", "days": TOKEN_DAYS_MAX}), 201),
        (json!({"role": reader, "name": "x", "days": 0}), 422),
        (json!({"role": reader, "name": "x", "days": -1}), 422),
        (json!({"role": reader, "name": "x", "days": TOKEN_DAYS_MAX + 1}), 422),
        (json!({"role": publisher, "name": "x", "push": ["ci/"]}), 201),
        (json!({"role": publisher, "name": "x", "pull": ["ci/"]}), 201),
        (json!({"role": publisher, "name": "x", "pull": ["ci/"], "push": ["tools/"]}), 201),
        (json!({"role": publisher, "name": "x"}), 422),
        (json!({"role": publisher, "name": "x", "push": ["../"]}), 422),
        (json!({"role": publisher, "name": "x", "pull": ["../"], "push": ["ci/"]}), 422),
        (json!({"role": reader, "name": "x", "push": ["ci/"]}), 422),
        (json!({"role": reader, "name": "x", "pull": ["ci/"]}), 422),
        (json!({"role": "admin", "name": "x", "push": ["ci/"]}), 422),
    ] {
        let made = controller.request("POST", "/api/v1/tokens").json(&new).send().await.unwrap();
        assert_eq!(made.status(), expected, "{new}");
        if expected == 201 {
            let made: Value = made.json().await.unwrap();
            let prefixes = |of: &Value, what| of.get(what).cloned().unwrap_or_else(|| json!([]));
            for what in ["pull", "push"] {
                assert_eq!(prefixes(&made, what), prefixes(&new, what), "{what} of {new}");
            }
        }
    }
}

#[tokio::test]
async fn the_audit_log_is_read_in_pages_none_of_which_is_long() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let written = (1..=1001).map(|number| {
        let entry = crate::store::NewAuditEntry {
            who: format!("token {number} ci"),
            role: "operator",
            method: "POST".into(),
            route: "/api/v1/jobs".into(),
            target: "/api/v1/jobs".into(),
            from: None,
            status: 201,
        };
        controller.app.store.record(entry, None, now_ms())
    });
    futures_util::future::try_join_all(written).await.unwrap();
    for (query, first, count, next) in [
        ("", 1, 100, json!(100)),
        ("?limit=1", 1, 1, json!(1)),
        // A page of zero entries would not advance.
        ("?limit=0", 1, 1, json!(1)),
        ("?limit=1000", 1, 1000, json!(1000)),
        ("?limit=1001", 1, 1000, json!(1000)),
        ("?limit=18446744073709551615", 1, 1000, json!(1000)),
        ("?after=1&limit=1000", 2, 1000, Value::Null),
        ("?after=990&limit=10", 991, 10, json!(1000)),
        ("?after=991&limit=10", 992, 10, Value::Null),
        ("?after=1000", 1001, 1, Value::Null),
        ("?after=1001", 0, 0, Value::Null),
        ("?after=9223372036854775807", 0, 0, Value::Null),
    ] {
        let page = controller.get(&format!("/api/v1/audit{query}")).await;
        let entries = page["entries"].as_array().unwrap();
        let seen = entries.first().map_or(0, |entry| entry["seq"].as_u64().unwrap());
        assert_eq!((seen, entries.len(), &page["next"]), (first, count, &next), "{query}");
    }
}

#[tokio::test]
async fn an_address_with_many_wrong_tokens_waits_with_good_ones_too() {
    use axum::body::Body;
    use axum::extract::ConnectInfo;
    use axum::http::Request;
    use tower::ServiceExt;

    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let router = http::router(controller.app.clone(), &Listener::ALL);
    let ask = async |from: &str, token: &str, path: &str| {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        let from = std::net::SocketAddr::new(from.parse().unwrap(), 1);
        request.extensions_mut().insert(ConnectInfo(from));
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        let answer = router.clone().oneshot(request).await.unwrap();
        (answer.status().as_u16(), answer.headers().get("retry-after").is_some())
    };
    let good = controller.admin_token();
    for number in 0..60 {
        let path = if number % 2 == 0 { "/api/v1/jobs" } else { "/v2/" };
        assert_eq!(ask("192.0.2.1", "wrong", path).await, (401, false));
        assert_eq!(ask("127.0.0.1", "wrong", path).await, (401, false));
    }
    for path in ["/api/v1/jobs", "/v2/"] {
        assert_eq!(ask("192.0.2.1", &good, path).await, (429, true));
        assert_eq!(ask("192.0.2.2", &good, path).await, (200, false));
        assert_eq!(ask("127.0.0.1", &good, path).await, (200, false));
    }
    assert_eq!(ask("192.0.2.1", &good, "/healthz").await.0, 200);
}

#[tokio::test]
async fn who_sends_much_reads_why_it_was_refused() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let reader = token(&controller.app, Role::Reader, 60_000).await;
    for (token, expected) in [(reader.as_str(), 403), ("wrong", 401)] {
        // More than the buffers of two sockets hold.
        let request = reqwest::Client::new().post(format!("{}/api/v1/jobs", controller.url));
        let sent = request.bearer_auth(token).body(vec![b' '; 5 << 20]).send().await;
        assert_eq!(sent.unwrap().status(), expected);
    }
}

/// The first entry whose hash does not follow from the entry before it.
fn broken(entries: &[AuditEntry]) -> Option<u64> {
    let mut before = AUDIT_BEGINNING.to_owned();
    for (entry, seq) in entries.iter().zip(1..) {
        let hash = hex::encode(sha256(entry.hashed_text(&before).as_bytes()));
        if entry.seq != seq || entry.hash != hash {
            return Some(seq);
        }
        before = hash;
    }
    None
}

#[tokio::test]
async fn who_changed_what_is_written_down_and_cannot_be_rewritten() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let operator = token(&controller.app, Role::Operator, 60_000).await;
    let id = tokens::id(&operator).unwrap();
    let bmc = bmc::Bmc::start("SN1", bmc::Play::Dead).await;
    let job = super::jobs::create(&controller, &bmc).await;
    let ask = async |token: &str, method: &str, path: &str| {
        let url = format!("{}{path}", controller.url);
        let request = reqwest::Client::new().request(method.parse().unwrap(), url);
        request.bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&operator, "POST", &format!("/api/v1/jobs/{job}/cancel?x=secret")).await, 202);
    assert_eq!(ask(&operator, "DELETE", "/api/v1/servers/SN1").await, 403);
    assert_eq!(ask(&operator, "GET", "/api/v1/jobs").await, 200);
    assert_eq!(ask("wrong", "DELETE", "/api/v1/servers/SN1").await, 401);
    assert_eq!(ask(&controller.admin_token(), "DELETE", "/v2/a/b/manifests/1").await, 404);
    let attempt = controller.app.store.job(&job).await.unwrap().attempt;
    assert_eq!(controller.say(&job, "log", &json!({"seq": 1, "lines": []})).await / 100, 4);
    assert_eq!(controller.say(&job, "hello", &json!({"boot_id": "b1"})).await, 400);

    let page = controller.get("/api/v1/audit?limit=2").await;
    assert_eq!(page["next"], 2);
    let mut entries: Vec<AuditEntry> = serde_json::from_value(page["entries"].clone()).unwrap();
    let rest = controller.get("/api/v1/audit?after=2").await;
    assert_eq!(rest.get("next"), None);
    entries.extend(serde_json::from_value::<Vec<AuditEntry>>(rest["entries"].clone()).unwrap());
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.who.as_str(), entry.role.as_str(), entry.target.as_str(), entry.status))
        .collect();
    let name = format!("token {id} a-operator");
    let node = format!("attempt {attempt}");
    let (hello, job) =
        (format!("/api/v1/node/attempts/{attempt}/hello"), format!("/api/v1/jobs/{job}"));
    let cancel = format!("{job}/cancel");
    let expected = [
        ("admin-token", "admin", "/api/v1/servers/SN1", 201),
        ("admin-token", "admin", job.as_str(), 202),
        (&name, "operator", &cancel, 202),
        (&name, "operator", "/api/v1/servers/SN1", 403),
        ("admin-token", "admin", "/v2/a/b/manifests/1", 404),
        (&node, "node", &hello, 400),
    ];
    assert_eq!(seen, expected);
    assert_eq!(broken(&entries), None);

    let rows = async || controller.app.store.audit(0, 1000).await.unwrap();
    let file = rusqlite::Connection::open(dir.path().join("data/shoal.sqlite")).unwrap();
    for (tamper, found, undo) in [
        (
            "UPDATE audit SET who = 'x' WHERE seq = 3",
            3,
            format!("UPDATE audit SET who = '{name}' WHERE seq = 3"),
        ),
        (
            "UPDATE audit SET at = at + 1 WHERE seq = 1",
            1,
            "UPDATE audit SET at = at - 1 WHERE seq = 1".into(),
        ),
        (
            "UPDATE audit SET status = 200 WHERE seq = 4",
            4,
            "UPDATE audit SET status = 403 WHERE seq = 4".into(),
        ),
        ("DELETE FROM audit WHERE seq = 2", 2, String::new()),
    ] {
        file.execute_batch(tamper).unwrap();
        assert_eq!(broken(&rows().await), Some(found), "{tamper}");
        file.execute_batch(&undo).unwrap();
        assert_eq!(broken(&rows().await).is_none(), !undo.is_empty(), "{tamper}");
    }
}

#[tokio::test]
async fn of_the_registry_what_gives_or_takes_a_name_is_written_down() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let digest = format!("sha256:{}", "0".repeat(64));
    let (tag, blob) = ("/v2/a/b/manifests/1", format!("/v2/a/b/blobs/{digest}"));
    for (method, path) in [
        ("GET", tag),
        ("HEAD", tag),
        ("PUT", tag),
        ("DELETE", tag),
        ("POST", "/v2/a/b/blobs/uploads/"),
        // A blob has no name until a manifest gives it one.
        ("PUT", "/v2/a/b/blobs/uploads/x"),
        ("GET", &blob),
        ("DELETE", &blob),
        ("GET", "/v2/a/b/tags/list"),
    ] {
        controller.request(method, path).send().await.unwrap();
    }
    let entries = controller.app.store.audit(0, 100).await.unwrap();
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.method.as_str(), entry.target.as_str(), entry.route.as_str()))
        .collect();
    assert_eq!(seen, [("PUT", tag, "/v2/"), ("DELETE", tag, "/v2/"), ("DELETE", &blob, "/v2/")]);
}

#[tokio::test]
async fn what_the_end_of_the_process_interrupts_is_in_the_audit_log_after_the_next_start() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let entry = crate::store::NewAuditEntry {
        who: "token 7 ci".into(),
        role: "operator",
        method: "POST".into(),
        route: "/api/v1/jobs".into(),
        target: "/api/v1/jobs".into(),
        from: Some("192.0.2.9".into()),
        status: 0,
    };
    controller.app.store.begin_request(entry, now_ms()).await.unwrap();
    let path = "/api/v1/servers/NONE";
    assert_eq!(controller.request("DELETE", path).send().await.unwrap().status(), 404);
    controller.kill().await;
    for _start in 0..2 {
        let controller = Controller::start(dir.path()).await;
        let entries = controller.app.store.audit(0, 10).await.unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (entry.who.as_str(), entry.target.as_str(), entry.status))
            .collect();
        // Recorded once; the request that got a response is not among them.
        let expected = [("admin-token", path, 404), ("token 7 ci", "/api/v1/jobs", 0)];
        assert_eq!(seen, expected);
        assert_eq!(broken(&entries), None);
        controller.kill().await;
    }
}
