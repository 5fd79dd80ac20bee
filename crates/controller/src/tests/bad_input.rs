// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of bad input: each case has its status and its problem document, and stores nothing.

use serde_json::{Value, json};

use super::{Controller, linux_recipe, temp_dir};

async fn with_server(controller: &Controller, serial: &str) {
    let answer = controller
        .request("PUT", &format!("/api/v1/servers/{serial}"))
        .json(&json!({"bmc": {
            "url": "https://127.0.0.1:1", "username": "u", "password": "p",
            "certificate_sha256": "00".repeat(32)
        }}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
}

fn job(serial: &str, recipe: &Value) -> String {
    json!({"server_serial": serial, "recipe": recipe}).to_string()
}

fn with(key: &str, value: Value) -> Value {
    let mut recipe = linux_recipe();
    recipe[key] = value;
    recipe
}

/// A request that is refused: name, method and path, body, status, kind of problem.
type Case = (&'static str, &'static str, String, u16, &'static str);

/// Asserts every part of each refusal that a client may rely on, and that nothing was stored.
async fn refuses(controller: &Controller, token: &str, cases: Vec<Case>) {
    let stored = async || {
        let mut stored = Vec::new();
        for path in ["/api/v1/jobs", "/api/v1/servers", "/api/v1/artifacts"] {
            stored.push(controller.get(path).await);
        }
        stored
    };
    let before = stored().await;
    for (name, request, body, status, kind) in cases {
        let (method, path) = request.split_once(' ').unwrap();
        let answer = reqwest::Client::new()
            .request(method.parse().unwrap(), format!("{}{path}", controller.url))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{name}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
        let text = answer.text().await.unwrap();
        let problem: api::problem::Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(problem.kind, format!("urn:shoal:problem:{kind}"), "{name}: {text}");
        assert_eq!(problem.status, status, "{name}");
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{name}: {text}");
        if kind == "recipe-invalid" {
            let errors = &problem.errors;
            assert!(!errors.is_empty(), "{name}: {text}");
            assert!(
                errors.iter().all(|error| error.path.starts_with("/recipe/")),
                "{name}: {text}"
            );
        }
    }
    assert_eq!(stored().await, before);
}

#[tokio::test]
async fn every_bad_job_is_refused_with_its_reason_and_nothing_is_stored() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    with_server(&controller, "SN1").await;
    const JOBS: &str = "POST /api/v1/jobs";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!("{{\"server_serial\":\"SN1\",\"recipe\":{deep}}}");
    let extra = json!({"server_serial": "SN1", "recipe": linux_recipe(), "x": 1}).to_string();
    let long = job("SN1", &with("user_data", "x".repeat(2 << 20).into()));
    let escape = job("SN1", &with("target_disk", "/dev/../../etc/passwd".into()));
    let esxi = json!({"task_target": "install-esxi.target", "ks_cfg": "vmaccepteula\n"});
    let absent = job("SN1", &with("oci_url", "controller/os-images/none:1".into()));
    let good = job("SN1", &linux_recipe());
    let cases = vec![
        ("no body", JOBS, String::new(), 400, "json"),
        ("malformed JSON", JOBS, "{\"server_serial\": ".into(), 400, "json"),
        ("not UTF-8's JSON", JOBS, "\u{feff}{}".into(), 400, "json"),
        ("deep JSON", JOBS, deep, 400, "json"),
        ("unknown field", JOBS, extra, 400, "json"),
        ("no recipe", JOBS, json!({"server_serial": "SN1"}).to_string(), 400, "json"),
        ("unknown recipe field", JOBS, job("SN1", &with("x", json!([]))), 400, "recipe-invalid"),
        ("2 MiB of user_data", JOBS, long, 400, "recipe-invalid"),
        ("path escape", JOBS, escape, 400, "recipe-invalid"),
        ("body of 7 MiB", JOBS, "x".repeat(7 << 20), 413, "body"),
        ("a token's", "POST /api/v1/tokens", "x".repeat(7 << 20), 413, "body"),
        ("unknown server", JOBS, job("SN9", &linux_recipe()), 404, "server-unknown"),
        ("a target of a later version", JOBS, job("SN1", &esxi), 422, "target-unsupported"),
        ("missing artifact", JOBS, absent, 422, "artifact-unknown"),
        (
            "a plan for nobody's server",
            "POST /api/v1/jobs?mode=plan",
            json!({"server_serial": "SN2", "recipe": linux_recipe()}).to_string(),
            404,
            "server-unknown",
        ),
        ("an unknown mode", "POST /api/v1/jobs?mode=dry", good.clone(), 400, "query"),
        ("an unknown query", "POST /api/v1/jobs?plan=true", good.clone(), 400, "query"),
    ];
    refuses(&controller, &controller.admin_token(), cases).await;
    refuses(&controller, "wrong", vec![("wrong token", JOBS, good.clone(), 401, "unauthorized")])
        .await;

    let first = controller.request("POST", "/api/v1/jobs").body(good.clone()).send().await.unwrap();
    assert_eq!(first.status(), 202);
    let first: Value = first.json().await.unwrap();
    // From here on the job waits for a BMC that does not exist.
    let id = first["id"].as_str().unwrap();
    controller.events_when(id, |events| events.to_string().contains("insert the media")).await;
    let second = ("a second open job", JOBS, good, 409, "conflict");
    refuses(&controller, &controller.admin_token(), vec![second]).await;
}

#[tokio::test]
async fn every_bad_path_method_and_query_is_a_problem_document() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    with_server(&controller, "SN1").await;
    let case =
        |request: &'static str, status, kind| (request, request, String::new(), status, kind);
    let cases = vec![
        case("GET /api/v1/jobs/%FF", 400, "path"),
        case("GET /api/v1/jobs/%FF/events", 400, "path"),
        case("POST /api/v1/jobs/%FF/cancel", 400, "path"),
        case("GET /api/v1/servers/%FF", 400, "path"),
        case("PUT /api/v1/servers/%FF", 400, "path"),
        case("DELETE /api/v1/servers/%FF", 400, "path"),
        case("POST /api/v1/servers/%FF/probe", 400, "path"),
        case("POST /api/v1/status-webhook/%FF", 400, "path"),
        case("GET /m/%FF/task.iso", 400, "path"),
        case("POST /api/v1/node/attempts/%FF/hello", 401, "unauthorized"),
        case("GET /api/v1/jobs/none", 404, "job-unknown"),
        case("GET /api/v1/jobs/none/events", 404, "job-unknown"),
        case("POST /api/v1/jobs/none/cancel", 404, "job-unknown"),
        case("GET /api/v1/servers/none", 404, "server-unknown"),
        case("DELETE /api/v1/servers/none", 404, "server-unknown"),
        case("POST /api/v1/servers/none/probe", 404, "server-unknown"),
        case("GET /m/none/task.iso", 404, "medium-unknown"),
        case("GET /", 404, "no-such-path"),
        case("GET /api/v1", 404, "no-such-path"),
        case("GET /api/v1/nothing", 404, "no-such-path"),
        case("GET /api/v1/jobs/", 404, "no-such-path"),
        case("DELETE /api/v1/jobs", 405, "method"),
        case("PATCH /api/v1/jobs/none", 405, "method"),
        case("GET /api/v1/jobs/none/cancel", 405, "method"),
        case("POST /api/v1/servers", 405, "method"),
        case("POST /m/none/task.iso", 405, "method"),
        case("POST /healthz", 405, "method"),
        case("GET /api/v1/jobs?status=broken", 400, "query"),
        case("GET /api/v1/jobs?limit=-1", 400, "query"),
        case("GET /api/v1/jobs?x=1", 400, "query"),
        case("GET /api/v1/jobs/none/events?after=x", 400, "query"),
    ];
    refuses(&controller, &controller.admin_token(), cases).await;
}

#[tokio::test]
async fn without_the_right_token_nothing_is_answered() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let client = reqwest::Client::new();
    for (method, path) in [
        ("GET", "/api/v1/jobs"),
        ("POST", "/api/v1/jobs"),
        ("GET", "/api/v1/jobs/x"),
        ("GET", "/api/v1/jobs/x/events"),
        ("POST", "/api/v1/jobs/x/cancel"),
        ("GET", "/api/v1/servers"),
        ("PUT", "/api/v1/servers/x"),
        ("DELETE", "/api/v1/servers/x"),
        ("POST", "/api/v1/servers/x/probe"),
        ("GET", "/api/v1/artifacts"),
        ("POST", "/api/v1/status-webhook/x"),
        ("POST", "/api/v1/node/attempts/x/hello"),
        ("GET", "/api/v1/node/attempts/x/recipe"),
        ("POST", "/api/v1/node/attempts/x/permit"),
        ("POST", "/api/v1/node/attempts/x/progress"),
        ("POST", "/api/v1/node/attempts/x/log"),
        ("POST", "/api/v1/node/attempts/x/result"),
        ("GET", "/v2/"),
        ("POST", "/v2/a/b/blobs/uploads/"),
    ] {
        for token in ["", "wrong", "shp_admin_00"] {
            let request =
                client.request(method.parse().unwrap(), format!("{}{path}", controller.url));
            let answer = request.bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), 401, "{method} {path} with {token:?}");
        }
    }
}

#[tokio::test]
async fn a_second_open_job_is_refused_and_a_repeated_request_is_answered_alike() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    with_server(&controller, "SN1").await;
    let post = async |key: &str, body: String| {
        let answer = controller
            .request("POST", "/api/v1/jobs")
            .header("idempotency-key", key)
            .body(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let body = job("SN1", &linux_recipe());
    let (status, first) = post("one", body.clone()).await;
    assert_eq!(status, 202);
    let (status, repeated) = post("one", body.clone()).await;
    assert_eq!((status, &repeated["id"]), (202, &first["id"]));
    let (status, problem) = post("one", job("SN1", &with("wipe", "any".into()))).await;
    assert_eq!(status, 409, "{problem:#}");
    let (status, problem) = post("two", body).await;
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains(first["id"].as_str().unwrap()));
    assert_eq!(controller.get("/api/v1/jobs").await["jobs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_with_a_placeholder_serial_or_a_plain_url_is_refused() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    for (serial, url, pin) in [
        ("To%20Be%20Filled%20By%20O.E.M.", "https://127.0.0.1:1", "00"),
        ("Default%20string", "https://127.0.0.1:1", "00"),
        ("0123456789", "https://127.0.0.1:1", "00"),
        ("System%20Serial%20Number", "https://127.0.0.1:1", "00"),
        ("Not%20Specified", "https://127.0.0.1:1", "00"),
        ("00000000", "https://127.0.0.1:1", "00"),
        ("SN1", "http://127.0.0.1:1", "00"),
        ("SN1", "https://user@127.0.0.1:1", "00"),
        ("SN1", "https://127.0.0.1:1/redfish/v1", "00"),
        ("SN1", "file:///etc/passwd", "00"),
        ("SN1", "https://169.254.169.254", "00"),
        ("SN1", "https://2852039166", "00"),
        ("SN1", "https://[::ffff:169.254.169.254]", "00"),
        ("SN1", "https://[fd00:ec2::254]", "00"),
        ("SN1", "https://0.0.0.0", "00"),
        ("SN1", "https://[::]:8443", "00"),
        ("SN1", "https://224.0.0.1", "00"),
        ("SN1", "https://[ff02::1]", "00"),
    ] {
        let answer = controller
            .request("PUT", &format!("/api/v1/servers/{serial}"))
            .json(&json!({"bmc": {
                "url": url, "username": "u", "password": "p", "certificate_sha256": pin.repeat(32)
            }}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{serial} {url} {pin}");
        let problem: Value = answer.json().await.unwrap();
        let is_told = problem["detail"].as_str().unwrap().contains("placeholder");
        assert_eq!(is_told, serial != "SN1", "{serial} {url}: {problem}");
    }
    assert_eq!(controller.get("/api/v1/servers").await["servers"], json!([]));
}

#[tokio::test]
async fn whom_to_trust_is_checked_and_changes_only_when_somebody_says_so() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let ca = std::fs::read_to_string(dir.path().join("data/tls/ca.pem")).unwrap();
    let put = async |trust: Value| {
        // Nothing listens there: an attempt to fetch the certificate would return 502.
        let mut bmc = json!({"url": "https://127.0.0.1:1", "username": "u", "password": "p"});
        bmc.as_object_mut().unwrap().extend(trust.as_object().unwrap().clone());
        let request = controller.request("PUT", "/api/v1/servers/SN1");
        let answer = request.json(&json!({"bmc": bmc})).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let pin = "0a".repeat(32);
    for (trust, path, code) in [
        (json!({"certificate_sha256": ""}), "/bmc/certificate_sha256", "pin"),
        (json!({"certificate_sha256": "zz".repeat(32)}), "/bmc/certificate_sha256", "pin"),
        (json!({"certificate_sha256": "0a"}), "/bmc/certificate_sha256", "pin"),
        (json!({"ca_pem": ""}), "/bmc/ca_pem", "ca"),
        (json!({"ca_pem": "no PEM"}), "/bmc/ca_pem", "ca"),
        (json!({"certificate_sha256": pin, "ca_pem": ca}), "/bmc/ca_pem", "pin-and-ca"),
    ] {
        let (status, problem) = put(trust.clone()).await;
        assert_eq!(status, 422, "{trust}");
        assert_eq!(problem["type"], "urn:shoal:problem:server-invalid", "{trust}");
        assert_eq!(problem["errors"][0]["path"], path, "{trust}");
        assert_eq!(problem["errors"][0]["code"], code, "{trust}");
    }
    assert_eq!(controller.get("/api/v1/servers").await["servers"], json!([]));

    assert_eq!(put(json!({})).await.0, 502, "a new server is asked for its certificate");
    let (status, server) = put(json!({"certificate_sha256": pin.to_uppercase()})).await;
    assert_eq!((status, &server["bmc"]["certificate_sha256"]), (201, &json!(pin)));
    let (status, server) = put(json!({})).await;
    assert_eq!((status, &server["bmc"]["certificate_sha256"]), (200, &json!(pin)));
    let (_, server) = put(json!({"ca_pem": ca})).await;
    assert_eq!(server["bmc"].get("certificate_sha256"), None);
    let (_, server) = put(json!({})).await;
    assert_eq!(server["bmc"]["ca_pem"], ca);
}

#[tokio::test]
async fn a_number_that_the_store_cannot_hold_is_told_with_its_place() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let store = &controller.app.store;
    store.put_server(super::rows::server("SN1")).await.unwrap();
    store.create_job(super::rows::job("job1", "SN1", "attempt1")).await.unwrap();
    let events = "/api/v1/jobs/job1/events";
    for (path, header, number, expected) in [
        ("/api/v1/audit?after=", None, u64::MAX, Some("/after")),
        ("/api/v1/audit?after=", None, 1 << 63, Some("/after")),
        ("/api/v1/audit?after=", None, (1 << 63) - 1, None),
        ("/api/v1/audit?limit=", None, u64::MAX, None),
        ("/api/v1/jobs?limit=", None, u64::MAX, None),
        (&format!("{events}?after="), None, u64::MAX, Some("/after")),
        (&format!("{events}?after="), None, (1 << 63) - 1, None),
        (events, Some("last-event-id"), u64::MAX, Some("/Last-Event-ID")),
        (events, Some("last-event-id"), 7, None),
    ] {
        let what = format!("{path} {header:?} {number}");
        let request = match header {
            None => controller.request("GET", &format!("{path}{number}")),
            Some(name) => controller.request("GET", path).header(name, number.to_string()),
        };
        let answer = request.send().await.unwrap();
        let Some(place) = expected else {
            assert_eq!(answer.status(), 200, "{what}");
            continue;
        };
        assert_eq!(answer.status(), 400, "{what}");
        let problem: api::problem::Problem = answer.json().await.unwrap();
        assert_eq!(problem.kind, "urn:shoal:problem:query", "{what}");
        let told = (problem.errors[0].path.as_str(), problem.errors[0].code.as_str());
        assert_eq!(told, (place, "number"), "{what}");
    }
    // A number that no earlier check refuses does not count as a broken database either.
    let memory = rusqlite::Connection::open_in_memory().unwrap();
    let error = memory.query_row("SELECT ?1", [u64::MAX], |_| Ok(())).unwrap_err();
    assert!(matches!(error.into(), crate::store::Error::TooLarge));
}
