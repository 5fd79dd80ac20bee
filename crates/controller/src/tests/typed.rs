// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of what people type and paste: prefixes of ids, files as editors write them, servers that are set again.

use serde_json::{Value, json};

use super::{Controller, linux_recipe, rows, temp_dir};

async fn sent(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_job_is_found_by_the_beginning_of_its_id_where_that_is_one_jobs_only() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let store = &controller.app.store;
    for (serial, id) in [("SN1", "0198b9c0-aaaa"), ("SN2", "0198b9c0-aabb"), ("SN3", "0198b9c0-aa")]
    {
        store.put_server(rows::server(serial)).await.unwrap();
        store.create_job(rows::job(id, serial, &format!("attempt of {id}"))).await.unwrap();
    }
    // First: the driver soon finds that these servers have no BMC, and a job that is over is not cancelled.
    let (status, job) = sent(controller.request("POST", "/api/v1/jobs/0198b9c0-aaa/cancel")).await;
    assert_eq!((status, &job["id"]), (202, &json!("0198b9c0-aaaa")));
    for (start, expected) in [
        ("0198b9c0-aaaa", Ok("0198b9c0-aaaa")),
        ("0198b9c0-aaa", Ok("0198b9c0-aaaa")),
        ("0198b9c0-aab", Ok("0198b9c0-aabb")),
        // A complete id, although two others begin with it.
        ("0198b9c0-aa", Ok("0198b9c0-aa")),
        ("0198b9c0", Err((404, "job-unknown"))),
        ("0198", Err((404, "job-unknown"))),
        // A prefix too short to select a job.
        ("019", Err((404, "job-unknown"))),
        ("0198b9c0-aaaaa", Err((404, "job-unknown"))),
        ("0198b9c1", Err((404, "job-unknown"))),
        ("%25198", Err((404, "job-unknown"))),
    ] {
        for path in ["", "/events", "/evidence"] {
            let path = format!("/api/v1/jobs/{start}{path}");
            let answer = controller.request("GET", &path).send().await.unwrap();
            match expected {
                Ok(_) => assert_eq!(answer.status(), 200, "{path}"),
                Err((status, kind)) => {
                    assert_eq!(answer.status(), status, "{path}");
                    let problem: Value = answer.json().await.unwrap();
                    assert_eq!(problem["type"], format!("urn:shoal:problem:{kind}"), "{path}");
                }
            }
        }
        if let Ok(id) = expected {
            assert_eq!(controller.get(&format!("/api/v1/jobs/{start}")).await["id"], id);
        }
    }
    let (status, problem) = sent(controller.request("POST", "/api/v1/jobs/0198b9/cancel")).await;
    assert_eq!(status, 404, "several jobs are never cancelled: {problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("0198b9c0-aaaa, 0198b9c0-aabb") && detail.contains("write more"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_body_is_read_as_editors_write_it_and_told_what_it_should_be() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    controller.app.store.put_server(rows::server("SN1")).await.unwrap();
    let good = json!({"server_serial": "SN1", "recipe": linux_recipe()}).to_string();
    let post = async |body: &str| {
        sent(controller.request("POST", "/api/v1/jobs?mode=plan").body(body.to_owned())).await
    };
    // The recipe was parsed: only the artifact is missing.
    let (status, answer) = post(&good).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(post(&format!("\u{feff}{good}")).await.0, 200);
    for (body, expected) in [
        (
            "server_serial: SN1\nrecipe:\n  task_target: x.target\n".to_owned(),
            "this looks like YAML; `shoal job create` takes YAML",
        ),
        (format!("// mine\n{good}"), "JSON has no comments"),
        (good.replacen('{', r#"{"server_serial":"SN2","#, 1), "\"server_serial\" is written twice"),
        (
            good.replacen("\"oci_url\"", "\"oci_url\":\"x\",\"oci_url\"", 1),
            "\"oci_url\" is written twice",
        ),
    ] {
        let (status, problem) = post(&body).await;
        assert_eq!(status, 400, "{body}: {problem}");
        assert_eq!(problem["type"], "urn:shoal:problem:json", "{body}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(expected), "{body}: {detail}");
    }
}

#[tokio::test]
async fn a_password_is_kept_while_its_url_and_its_account_are_the_same() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let put = async |url: &str, username: &str, password: Option<&str>| {
        let bmc = json!({"url": url, "username": username, "password": password,
                         "certificate_sha256": "0a".repeat(32)});
        let request = controller.request("PUT", "/api/v1/servers/SN1");
        sent(request.json(&json!({"bmc": bmc}))).await
    };
    let (one, other) = ("https://127.0.0.1:1", "https://127.0.0.1:2");
    for (url, username, password, expected) in [
        (one, "admin", None, 400),
        (one, "admin", Some("secret"), 201),
        (one, "admin", None, 200),
        (one, "root", None, 400),
        (other, "admin", None, 400),
        (one, "root", Some("another"), 200),
        (one, "root", None, 200),
    ] {
        let (status, answer) = put(url, username, password).await;
        assert_eq!(status, expected, "{url} {username} {password:?}: {answer}");
        if expected == 400 {
            assert_eq!(answer["errors"][0]["path"], "/bmc/password");
        }
    }
}

#[tokio::test]
async fn a_serial_with_a_space_in_it_is_a_servers_name() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = json!({"bmc": {"url": "https://127.0.0.1:1", "username": "u", "password": "p",
                             "certificate_sha256": "0a".repeat(32)}});
    for (serial, expected) in [
        ("VMware-56%204d%2012%20ab", 201),
        ("AB%20%20C", 201),
        ("%20AB12", 400),
        ("AB12%20", 400),
        ("AB%0912", 400),
        ("AB%2F12", 400),
        ("%C3%A9AB12", 400),
    ] {
        let request = controller.request("PUT", &format!("/api/v1/servers/{serial}"));
        let (status, answer) = sent(request.json(&bmc)).await;
        assert_eq!(status, expected, "{serial}: {answer}");
    }
    let shown = controller.get("/api/v1/servers/VMware-56%204d%2012%20ab").await;
    assert_eq!(shown["serial"], "VMware-56 4d 12 ab");
    let recipe = json!({"server_serial": "VMware-56 4d 12 ab", "recipe": linux_recipe()});
    let (status, plan) =
        sent(controller.request("POST", "/api/v1/jobs?mode=plan").json(&recipe)).await;
    assert_eq!((status, &plan["server_serial"]), (200, &json!("VMware-56 4d 12 ab")));
    let list = controller.get("/api/v1/jobs?server=VMware-56%204d+12%20ab").await;
    assert_eq!(list["jobs"], json!([]));
}
