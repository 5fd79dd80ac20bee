// SPDX-License-Identifier: AGPL-3.0-or-later
//! Bad input: each its status, its problem document, and nothing stored.

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

#[tokio::test]
async fn every_bad_job_is_refused_with_its_reason_and_nothing_is_stored() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    with_server(&controller, "SN1").await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, String, u16, &str)> = vec![
        ("malformed JSON", "{\"server_serial\": ".into(), 400, "json"),
        ("deep JSON", format!("{{\"server_serial\":\"SN1\",\"recipe\":{deep}}}"), 400, "json"),
        (
            "unknown envelope field",
            json!({"server_serial":"SN1","recipe":{},"x":1}).to_string(),
            400,
            "json",
        ),
        ("unknown recipe field", job("SN1", &with("partitions", json!([]))), 400, "recipe-invalid"),
        (
            "2 MiB of user_data",
            job("SN1", &with("user_data", "x".repeat(2 << 20).into())),
            400,
            "recipe-invalid",
        ),
        (
            "path escape",
            job("SN1", &with("target_disk", "/dev/../../etc/passwd".into())),
            400,
            "recipe-invalid",
        ),
        ("body of 7 MiB", "x".repeat(7 << 20), 413, "body"),
        ("unknown server", job("SN9", &linux_recipe()), 404, "server-unknown"),
        (
            "a target of a later version",
            job(
                "SN1",
                &json!({
                    "task_target": "install-esxi.target", "ks_cfg": "vmaccepteula\n"
                }),
            ),
            422,
            "target-unsupported",
        ),
        (
            "missing artifact",
            job("SN1", &with("oci_url", "controller/os-images/none:1".into())),
            422,
            "artifact-unknown",
        ),
    ];
    for (name, body, status, kind) in cases {
        let answer = controller
            .request("POST", "/api/v1/jobs")
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{name}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{name}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["type"], format!("urn:shoal:problem:{kind}"), "{name}: {problem:#}");
        assert_eq!(problem["status"], status, "{name}");
        if kind == "recipe-invalid" {
            let path = problem["errors"][0]["path"].as_str().unwrap();
            assert!(path.starts_with("/recipe"), "{name}: {problem:#}");
        }
    }
    assert_eq!(controller.get("/api/v1/jobs").await["jobs"], json!([]));
}

#[tokio::test]
async fn a_plan_or_an_unknown_query_is_refused_and_starts_no_job() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    with_server(&controller, "SN1").await;
    for (query, status, kind) in [
        ("mode=plan", 501, "plan-unsupported"),
        ("mode=dry", 400, "query"),
        ("plan=true", 400, "query"),
    ] {
        let request = controller.request("POST", &format!("/api/v1/jobs?{query}"));
        let answer = request.body(job("SN1", &linux_recipe())).send().await.unwrap();
        assert_eq!(answer.status(), status, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{query}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["type"], format!("urn:shoal:problem:{kind}"), "{query}: {problem:#}");
    }
    assert_eq!(controller.get("/api/v1/jobs").await["jobs"], json!([]));
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
        ("SN1", "http://127.0.0.1:1", "00"),
        ("SN1", "https://user@127.0.0.1:1", "00"),
        ("SN1", "https://127.0.0.1:1/redfish/v1", "00"),
        ("SN1", "file:///etc/passwd", "00"),
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
    }
    assert_eq!(controller.get("/api/v1/servers").await["servers"], json!([]));
}

#[tokio::test]
async fn whom_to_trust_is_checked_and_changes_only_when_somebody_says_so() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let ca = std::fs::read_to_string(dir.path().join("data/tls/ca.pem")).unwrap();
    let put = async |trust: Value| {
        // Nobody listens there: a certificate that is fetched would be a 502.
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
