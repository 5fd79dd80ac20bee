// SPDX-License-Identifier: AGPL-3.0-or-later
//! The program as people and scripts run it: what it prints, to whom, and its exit status. The controller's part is
//! played on a socket.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn shoal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    for name in ["SHOAL_CONTROLLER", "SHOAL_CA", "SHOAL_TOKEN_FILE", "SHOAL_CLIENT_CERT"] {
        command.env_remove(name);
    }
    command.env("TZ", "UTC");
    command
}

/// Answers each request with what `answer` makes of its method and path; the URL to reach it by.
fn controller(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            reader.read_line(&mut line).unwrap();
            let request = line.rsplit_once(' ').unwrap_or_default().0.to_owned();
            loop {
                line.clear();
                reader.read_line(&mut line).unwrap();
                let header = line.to_lowercase();
                if let Some(value) = header.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (status, json) =
                answer(&request, &serde_json::from_slice(&body).unwrap_or_default());
            let text = json.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                text.len()
            );
            // A client that has gone is a case of these tests.
            let _ = (&stream).write_all(format!("{head}{text}").as_bytes());
        }
    });
    url
}

fn run(url: &str, arguments: &[&str]) -> Output {
    shoal().args(["--controller", url]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn server() -> Value {
    json!({
        "serial": "SN1", "created_at": "2026-11-30T10:00:00Z", "updated_at": "2026-11-30T10:00:00Z",
        "bmc": {"url": "https://bmc.example/", "username": "root", "certificate_sha256": "ab".repeat(32)},
        "bmc_profile": "dell-idrac9",
    })
}

#[test]
fn a_reader_that_ends_early_ends_the_program_quietly() {
    let url = controller(|_, _| (200, json!({"servers": [server()]})));
    for arguments in [&["server", "list"][..], &["server", "list", "--output", "json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = shoal();
        child.args(["--controller", &url]).args(arguments).stdout(writer).stderr(Stdio::piped());
        let output = child.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(141), "{arguments:?}");
    }
    // Standard error too: there is nobody left to tell.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = shoal();
    child.args(["--controller", "nonsense", "server", "list"]).stderr(writer);
    assert_eq!(child.status().unwrap().code(), Some(1));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let url = controller(|_, _| (200, json!({"servers": [server()]})));
    let mut child = shoal();
    child.args(["--controller", &url, "server", "list"]).stderr(Stdio::piped());
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = child.stdout(full).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.starts_with("shoal: write to standard output: "), "{told}");
}

#[test]
fn a_server_is_shown_with_its_user_its_profile_and_its_whole_pin() {
    let url = controller(|_, _| (200, server()));
    let shown = text(&run(&url, &["server", "show", "SN1"]).stdout);
    for line in [
        "user         root".to_owned(),
        "bmc profile  dell-idrac9".to_owned(),
        format!("certificate  {}", "ab".repeat(32)),
        "created      2026-11-30 10:00:00 UTC".to_owned(),
    ] {
        assert!(shown.contains(&line), "{line}: {shown}");
    }
}

#[test]
fn a_known_server_is_changed_by_what_is_given_and_a_new_one_needs_all() {
    let (told, heard) = std::sync::mpsc::channel();
    let url = controller(move |request, body| {
        if request.starts_with("PUT") {
            told.send(body.clone()).unwrap();
        }
        if request.contains("/NEW") && request.starts_with("GET") {
            return (
                404,
                json!({"type": "x", "title": "not found", "status": 404, "detail": "new"}),
            );
        }
        (200, server())
    });
    let pin = "AB:".repeat(31) + "CD";
    let output = run(&url, &["server", "set", "SN1", "--pin", &pin]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        heard.recv().unwrap(),
        json!({
            "bmc": {
                "url": "https://bmc.example/", "username": "root",
                "certificate_sha256": "ab".repeat(31) + "cd",
            },
            "bmc_profile": "dell-idrac9",
        })
    );
    let output = run(&url, &["server", "set", "SN1", "--bmc-profile", "auto", "--username", "u"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        heard.recv().unwrap(),
        json!({"bmc": {"url": "https://bmc.example/", "username": "u"}})
    );
    let output = run(&url, &["server", "set", "NEW", "--bmc-url", "https://b"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "shoal: NEW is a new server: give --username too\n");
}

#[test]
fn problems_of_a_probe_end_it_as_those_of_a_plan_do() {
    let url = controller(|request, _| {
        let problems = if request.contains("BAD") { json!(["no slot"]) } else { json!([]) };
        (200, json!({"problems": problems, "slots": [], "serial": "SN1"}))
    });
    assert_eq!(run(&url, &["server", "probe", "GOOD"]).status.code(), Some(0));
    let output = run(&url, &["server", "probe", "BAD"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stdout).contains("no slot"), "{output:?}");
}

#[test]
fn a_recipe_is_checked_without_a_controller() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let good = file("good.yaml", "\u{feff}# mine\ntask_target: custom.target\n");
    let bad = file("bad.json", r#"{"task_target": "install-linux.target", "wipe": "yes"}"#);
    let broken = file("broken.yaml", "a: 1\na: 2\n");
    let validate = |files: &[&str]| {
        shoal().args(["recipe", "validate"]).args(files).env_remove("HOME").output().unwrap()
    };
    let output = validate(&[&good]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = validate(&[&good, &bad, &broken]);
    assert_eq!(output.status.code(), Some(4));
    let told = text(&output.stdout);
    for expected in
        ["valid", "/wipe", "is not consent", "/target_disk", "is missing", "line 2, column 1"]
    {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let output = validate(&[&bad, "--output", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["is_valid"], false);
    assert_eq!(told["problems"][0]["file"], bad);
    assert_eq!(validate(&["/does/not/exist"]).status.code(), Some(1));
}

#[test]
fn the_last_job_of_a_server_needs_no_id() {
    let url = controller(|request, _| match request {
        "GET /api/v1/jobs?limit=1&server=SN%201" => (200, json!({"jobs": [{"id": "j1"}]})),
        "GET /api/v1/jobs/j1" => (200, json!({"id": "j1", "reason": "why"})),
        "GET /api/v1/jobs?limit=1&server=NONE" => (200, json!({"jobs": []})),
        "GET /api/v1/jobs?server=SN1&limit=1" => (200, json!({"jobs": [{"id": "j2"}]})),
        other => (404, json!(other)),
    });
    let output = run(&url, &["job", "show", "--server", "SN 1"]);
    assert!(text(&output.stdout).contains("why"), "{output:?}");
    let output = run(&url, &["job", "show", "--server", "NONE"]);
    assert_eq!(text(&output.stderr), "shoal: server NONE has no job yet\n");
    let output = run(&url, &["job", "list", "--server", "SN1", "--last"]);
    assert!(text(&output.stdout).contains("j2"), "{output:?}");
}

#[test]
fn a_list_that_is_cut_off_says_so() {
    let url = controller(|request, _| match request {
        "GET /api/v1/jobs?limit=2" => (200, json!({"jobs": [{"id": "a"}], "next_cursor": "a"})),
        "GET /api/v1/jobs?cursor=a&limit=1" => {
            (200, json!({"jobs": [{"id": "b"}], "next_cursor": "b"}))
        }
        other => (404, json!(other)),
    });
    let output = run(&url, &["job", "list", "--limit", "2"]);
    assert_eq!(text(&output.stdout).lines().count(), 3, "{output:?}");
    assert_eq!(text(&output.stderr), "shoal: there are older jobs; --limit 4 shows more\n");
}

#[test]
fn a_controller_that_cannot_be_reached_is_told_with_the_cure() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = run(&format!("http://{nobody}"), &["job", "list"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("nothing listens at"), "{output:?}");
    // A proxy that nobody could use does not stand in loopback's way.
    let url = controller(|_, _| (200, json!({"jobs": []})));
    let output = shoal()
        .args(["--controller", &url, "job", "list"])
        .envs([("ALL_PROXY", "http://127.0.0.1:1"), ("HTTP_PROXY", "http://127.0.0.1:1")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = shoal()
        .args(["--controller", "http://192.0.2.1:1", "job", "list"])
        .env("HTTP_PROXY", "http://user:secret@127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(
        told.contains("the proxy 127.0.0.1:1 of HTTP_PROXY") && !told.contains("secret"),
        "{told}"
    );
}

#[test]
fn open_uploads_are_shown_and_cancelled_by_the_beginning_of_their_id() {
    let (told, heard) = std::sync::mpsc::channel();
    let url = controller(move |request, _| {
        told.send(request.to_owned()).unwrap();
        let upload = |id: &str, who: Value, repository: Value, is_receiving: bool| {
            json!({
                "id": id, "who": who, "repository": repository, "is_receiving": is_receiving,
                "begun_at": "2026-11-30T10:00:00Z", "written_at": "2026-11-30T10:05:00Z",
                "bytes": 3 << 20,
            })
        };
        match request.split(' ').next().unwrap_or_default() {
            "GET" => (
                200,
                json!({"uploads": [
                    upload("aa11", "token 1 ci".into(), "os-images/a".into(), true),
                    upload("aa22", Value::Null, Value::Null, false),
                ]}),
            ),
            "POST" => (200, json!({"uploads_removed": 2})),
            _ => (204, Value::Null),
        }
    });
    let shown = text(&run(&url, &["artifact", "uploads", "list"]).stdout);
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    let of = |line: &str| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    let cells: Vec<Vec<&str>> = lines.iter().map(|line| of(line)).collect();
    let (begun, last) = ("2026-11-30 10:00:00 UTC", "2026-11-30 10:05:00 UTC");
    assert_eq!(
        cells,
        [
            vec!["ID", "REPOSITORY", "WHO", "BEGUN", "LAST BYTES", "SIZE", "NOW"],
            vec!["aa11", "os-images/a", "token 1 ci", begun, last, "3.00 MiB", "receiving"],
            vec!["aa22", "not known", "not known", begun, last, "3.00 MiB", "waits"],
        ],
        "{shown}"
    );
    for (id, status, cure) in
        [("aa2", 0, ""), ("aa", 1, "give more of it"), ("b", 1, "uploads list")]
    {
        let output = run(&url, &["artifact", "uploads", "cancel", id]);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{id}: {told}");
        assert!(told.contains(cure), "{id}: {told}");
    }
    for arguments in [&["artifact", "gc"][..], &["artifact", "gc", "--uploads"]] {
        assert_eq!(run(&url, arguments).status.code(), Some(0));
    }
    let requests: Vec<String> = heard.try_iter().filter(|line| !line.starts_with("GET")).collect();
    assert_eq!(
        requests,
        [
            "DELETE /api/v1/artifacts/uploads/aa22",
            "POST /api/v1/artifacts/gc?uploads=false",
            "POST /api/v1/artifacts/gc?uploads=true",
        ]
    );
}

#[test]
fn a_server_is_switched_by_the_words_of_the_field() {
    let (told, heard) = std::sync::mpsc::channel();
    let url = controller(move |_, body| {
        told.send(body["power"].as_str().unwrap_or_default().to_owned()).unwrap();
        (200, json!({"power": "On", "boot_override": "Disabled"}))
    });
    for (word, sent) in [
        ("on", "on"),
        ("off", "off"),
        ("force-off", "force_off"),
        ("reset", "reset"),
        ("restart", "restart"),
        ("reboot", "restart"),
        ("cycle", "cycle"),
    ] {
        let output = run(&url, &["server", "power", "SN1", word]);
        assert_eq!(output.status.code(), Some(0), "{word}: {}", text(&output.stderr));
        assert_eq!(heard.recv().unwrap(), sent, "{word}");
    }
    assert_eq!(run(&url, &["server", "power", "SN1", "explode"]).status.code(), Some(2));
}
