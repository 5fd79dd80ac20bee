// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the program as people and scripts run it: its output on both streams, and its exit status. A socket plays
//! the controller.

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

/// Responds to each request with what `answer` returns for its method and path; returns the URL of the server.
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
            // A body that is not JSON, such as a stream of events, is given as a string.
            let text = json.as_str().map_or_else(|| json.to_string(), str::to_owned);
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                text.len()
            );
            // Some of these tests have a client that disconnects.
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
    // Standard error is closed too, so that nothing can be reported.
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
    // An invalid proxy does not affect loopback.
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

/// Starts a controller whose job `j1` has these events and ended as failed.
fn controller_of_failed_job(events: &[Value], job: Value) -> String {
    let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    controller(move |request, _| match request {
        "POST /api/v1/jobs" | "GET /api/v1/jobs/j1" => (200, job.clone()),
        "GET /api/v1/jobs/j1/events" => (200, json!(stream)),
        other => (404, json!(other)),
    })
}

#[test]
fn a_watched_job_that_fails_tells_why_what_was_done_to_the_machine_and_where_to_look() {
    let event = |seq: u64, kind: &str, status: &str, message: &str| json!({"seq": seq, "at": "t", "kind": kind, "status": status, "message": message});
    let reason = format!("the disk holds ext4; {}the end", "a long way to ".repeat(40));
    let job = |attention: Value| {
        json!({"id": "j1", "status": "complete", "outcome": "failed", "failed_step": "partition.service",
               "reason": format!("{reason}\nsecond line"), "needs_attention": attention})
    };
    let events = [
        event(1, "done", "provisioning", "inserted"),
        event(2, "failed", "failed", "partition.service: no"),
        event(3, "done", "failed", "powered off"),
        event(4, "gave_up", "failed", "eject the media: CD2 is stuck"),
        event(5, "done", "complete", "started from its disk"),
    ];
    let url = controller_of_failed_job(&events, job(json!("the machine at rest: CD2")));
    for arguments in [&["job", "watch", "j1"][..], &["job", "watch", "j1", "--output", "json"]] {
        let output = run(&url, arguments);
        assert_eq!(output.status.code(), Some(4));
        assert_eq!(
            text(&output.stderr),
            format!(
                "shoal: the job failed in partition.service:\n  {reason}\n  second line\n\
                 the machine, after that: powered off; started from its disk\n\
                 not done: eject the media: CD2 is stuck\n\
                 needs attention: the machine at rest: CD2\n\
                 to look at it:\n  shoal job show j1\n  shoal job watch j1     all events again\n  \
                 shoal job evidence j1  all that is known, in one archive\n"
            )
        );
    }
    // Ended before the machine was touched.
    let url = controller_of_failed_job(&[event(1, "gave_up", "complete", "no")], job(Value::Null));
    let recipe = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(recipe.path(), "task_target: custom.target\n").unwrap();
    let recipe = recipe.path().to_str().unwrap();
    let output = run(&url, &["job", "create", "--server", "S", "--recipe", recipe, "--watch"]);
    assert_eq!(output.status.code(), Some(4));
    let told = text(&output.stderr);
    assert!(told.contains("\nthe machine: nothing was changed on it\n"), "{told}");
    assert!(!told.contains("needs attention"), "{told}");
}

/// Returns the path of every recipe below `examples/`.
fn examples() -> Vec<std::path::PathBuf> {
    let mut open = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")];
    let mut files = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.extension().and_then(|extension| extension.to_str()) {
                None => open.push(path),
                Some("md") => {}
                Some(_) => files.push(path),
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_example_is_a_valid_recipe_and_in_the_list_of_examples() {
    let files = examples();
    assert!(files.len() >= 5, "{files:?}");
    let output = shoal().args(["recipe", "validate"]).args(&files).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let list = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/README.md"),
    );
    let list = list.unwrap();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let dir = file.parent().unwrap().file_name().unwrap().to_str().unwrap();
        assert!(list.contains(&format!("`{dir}/{name}`](")), "{name}");
    }
}

/// Sends these bytes on every connection, whatever the client sends.
fn always(bytes: &'static [u8]) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(bytes);
        }
    });
    address
}

/// A fatal TLS alert, `unexpected_message` (RFC 8446, section 6).
const TLS_ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 10];
const PAGE: &[u8] =
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 11\r\nconnection: close\r\n\r\n<html>nginx";
const MOVED: &[u8] = b"HTTP/1.1 301 X\r\nlocation: https://shoal.example/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const GREETING: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

/// A CA without a key: `openssl req -x509 -newkey ed25519 -nodes -keyout /dev/null -subj "/CN=some CA" -days 36500`.
const SOME_CA: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBOjCB7aADAgECAhRFkixaq8/wRPmCxUizr7WBuByWzzAFBgMrZXAwEjEQMA4G\n\
A1UEAwwHc29tZSBDQTAgFw0yNjExMzAwODI5MDBaGA8yMTI2MTEwNjA4MjkwMFow\n\
EjEQMA4GA1UEAwwHc29tZSBDQTAqMAUGAytlcAMhAHG1io0pTkcAh7c6BgJYUqCe\n\
SXk2q/IobnCewdcZawmeo1MwUTAdBgNVHQ4EFgQUBwNCNg/WawfFIpQlAne2KItk\n\
fdQwHwYDVR0jBBgwFoAUBwNCNg/WawfFIpQlAne2KItkfdQwDwYDVR0TAQH/BAUw\n\
AwEB/zAFBgMrZXADQQAsjS2JHYlllBdkkC7FY/eI1xwJY1GXtSQK7MSBnIs/E4PA\n\
hb37RApEaAoWuglXaEM845r8axibWF4IupxfJaYC\n\
-----END CERTIFICATE-----\n";

#[test]
fn every_mistake_of_a_first_hour_is_told_with_its_cure() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    let [empty, token, recipe] = [
        file("empty", b"\n"),
        file("token", b"shp_admin_1\n"),
        file("recipe.yaml", b"task_target: custom.target\n"),
    ];
    let der = file("ca.der", &[0x30, 0x82, 1, 1]);
    let key = file("key", b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n");
    let cut = file("cut.pem", b"-----BEGIN CERTIFICATE-----\nAA==\n");
    let directory = dir.path().to_str().unwrap();
    let absent = dir.path().join("absent").to_str().unwrap().to_owned();

    let refusing = controller(|_, _| {
        (
            401,
            json!({"type": "t", "title": "a valid token is needed", "status": 401, "detail": "no"}),
        )
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [alert, page, moved, greeting] = [TLS_ALERT, PAGE, MOVED, GREETING].map(always);
    let http = |address: std::net::SocketAddr| format!("http://{address}");
    let https = |address: std::net::SocketAddr| format!("https://{address}");
    let cases: &[(&str, &[&str], i32, &str)] = &[
        // The controller's URL.
        (&https(nobody), &["--ca", "CA"], 3, "nothing listens at 127.0.0.1:"),
        (&http(nobody), &[], 3, "is the controller up, and is this its --listen address?"),
        (&http(alert), &[], 3, "speaks no plain HTTP; write https://127.0.0.1:"),
        (
            &https(greeting),
            &["--ca", "CA"],
            3,
            "speaks no TLS; if the controller serves plain HTTP, write http://",
        ),
        (&http(page), &[], 1, "Check --controller; it said: <html>nginx"),
        (
            &http(moved),
            &[],
            1,
            "sends its clients to https://shoal.example/; if that is the controller",
        ),
        (&http(greeting), &[], 1, "the answer is not JSON; is http://127.0.0.1:"),
        ("127.0.0.1:8443", &[], 1, "has no scheme; write https://127.0.0.1:8443"),
        (
            "https://c:1/api/v1/jobs",
            &[],
            1,
            "has a path; write scheme, host and port only: https://c:1",
        ),
        ("https://", &[], 1, "is no URL; write one such as https://192.0.2.5:8443"),
        // The caller's credentials.
        (
            &refusing,
            &[],
            1,
            "no; give --token-file FILE (SHOAL_TOKEN_FILE) with a token that `token create`",
        ),
        (
            &refusing,
            &["--token-file", &token],
            1,
            "token is not of the controller at http://127.0.0.1:",
        ),
        (&refusing, &["--token-file", &absent], 1, "absent does not exist; check the path"),
        (&refusing, &["--token-file", "no-such-file"], 1, "no-such-file does not exist in /"),
        (&refusing, &["--token-file", directory], 1, "is a directory; name a file in it"),
        (&refusing, &["--token-file", &empty], 1, "empty is empty; write the token into it"),
        (
            &refusing,
            &["--token-file", &key],
            1,
            "has several lines; the token must be the only one",
        ),
        // The trusted CAs.
        (&https(nobody), &["--ca", &absent], 1, "read --ca: "),
        (&https(nobody), &["--ca", directory], 1, "is a directory; name a file in it"),
        (&https(nobody), &["--ca", &empty], 1, "empty is empty"),
        (
            &https(nobody),
            &["--ca", &der],
            1,
            "is DER, not PEM; convert it: openssl x509 -inform der -in ",
        ),
        (
            &https(nobody),
            &["--ca", &key],
            1,
            "there is no certificate in it (-----BEGIN CERTIFICATE-----)",
        ),
        (
            &https(nobody),
            &["--ca", &token],
            1,
            "there is no certificate in it (-----BEGIN CERTIFICATE-----)",
        ),
        (&https(nobody), &["--ca", &cut], 1, "cut.pem: read certificates as PEM"),
    ];
    // Any certificate: these servers show none.
    let ca = file("some-ca.pem", SOME_CA.as_bytes());
    let told = |controller: &str, options: &[&str], rest: &[&str]| {
        let options = options.iter().map(|option| if *option == "CA" { &*ca } else { option });
        let output =
            shoal().args(["--controller", controller]).args(options).args(rest).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for (controller, options, status, expected) in cases {
        let (code, told) = told(controller, options, &["job", "list"]);
        assert_eq!(code, Some(*status), "{controller} {options:?}: {told}");
        assert!(told.contains(expected), "{controller} {options:?}: {told}");
        // Once, and not as a debug form.
        assert!(told.matches(expected).count() == 1 && !told.contains("os error 2"), "{told}");
    }
    // The file to send.
    let url = &*refusing;
    let create = |recipe| ["job", "create", "--server", "S", "--recipe", recipe];
    for (arguments, expected) in [
        (&create(&absent)[..], "read the recipe: "),
        (&create(&absent), "absent does not exist; check the path"),
        (&create(directory), "is a directory; name a file in it"),
        (&create(&empty), "the file is empty; examples/linux/minimal.yaml"),
        (&["recipe", "validate", &absent], "absent does not exist; check the path"),
        (&["recipe", "validate", directory], "is a directory; name a file in it"),
        (&["artifact", "push", "os/a:1", &absent], "absent does not exist; check the path"),
        (&["artifact", "push", "os/a:1", directory], "is a directory; name a file in it"),
        (
            &["artifact", "push", "os/a", &recipe],
            "is not REPOSITORY:TAG, such as os-images/debian:13",
        ),
        (&["artifact", "import", &absent], "absent does not exist; check the path"),
        (&["server", "firmware", "update", "S", directory], "is a directory; name a file in it"),
    ] {
        let (code, told) = told(url, &[], arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
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
    let cells: Vec<Vec<&str>> = lines
        .iter()
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
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
