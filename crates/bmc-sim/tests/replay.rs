// SPDX-License-Identifier: AGPL-3.0-or-later
//! A recorded BMC from the point of view of its client, over HTTPS. The trees are hand-written in the makers' forms.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

use std::path::{Path, PathBuf};

use bmc_sim::Access;
use bmc_sim::replay::{self, Replay, Tree};
use reqwest::{Client, Method};
use serde_json::{Value, json};

struct Bmc {
    replay: Replay,
    client: Client,
    token: Option<String>,
}

/// Status, headers and body of a response.
struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
    text: String,
}

fn tree(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees").join(name)
}

impl Bmc {
    async fn start(name: &str) -> Bmc {
        let replay = replay::start(replay::Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            tree: tree(name),
            access: Access { username: "admin".into(), password: "secret".into() },
            work_dir: None,
            maintenance_iso: None,
        });
        let replay = replay.await.unwrap();
        let client = Client::builder().danger_accept_invalid_certs(true).no_proxy().build();
        Bmc { replay, client: client.unwrap(), token: None }
    }

    async fn send(&self, method: Method, path: &str, body: Value, if_match: Option<&str>) -> Got {
        let mut request = self.client.request(method, self.replay.redfish_url.join(path).unwrap());
        request = match &self.token {
            Some(token) => request.header("x-auth-token", token),
            None => request.basic_auth("admin", Some("secret")),
        };
        if let Some(etag) = if_match {
            request = request.header("if-match", etag);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Got { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    async fn get(&self, path: &str) -> Value {
        let got = self.send(Method::GET, path, Value::Null, None).await;
        assert_eq!(got.status, 200, "{path}: {}", got.text);
        got.body
    }

    async fn post(&self, path: &str, body: Value) -> u16 {
        self.send(Method::POST, path, body, None).await.status
    }

    async fn patch(&self, path: &str, body: Value) -> u16 {
        self.send(Method::PATCH, path, body, None).await.status
    }
}

/// What a client needs from a tree, and what it must see there.
struct Case {
    tree: &'static str,
    system: &'static str,
    slot: &'static str,
    /// The resource to which the override is written.
    boot: &'static str,
    cd: &'static str,
    /// A target that the tree does not list.
    not_offered: &'static str,
    reset: &'static str,
    not_reset: &'static str,
}

const CASES: &[Case] = &[
    Case {
        tree: "dell",
        system: "/redfish/v1/Systems/System.Embedded.1",
        slot: "/redfish/v1/Systems/System.Embedded.1/VirtualMedia/1",
        boot: "/redfish/v1/Systems/System.Embedded.1",
        cd: "Cd",
        not_offered: "UsbCd",
        reset: "ForceRestart",
        not_reset: "GracefulRestart",
    },
    Case {
        tree: "hpe.json",
        system: "/redfish/v1/Systems/1/",
        slot: "/redfish/v1/Managers/1/VirtualMedia/2/",
        boot: "/redfish/v1/Systems/1/",
        cd: "Cd",
        not_offered: "UsbCd",
        reset: "On",
        not_reset: "ForceOn",
    },
    Case {
        tree: "supermicro",
        system: "/redfish/v1/Systems/1",
        slot: "/redfish/v1/Managers/1/VirtualMedia/VirtualMedia1",
        boot: "/redfish/v1/Systems/1",
        cd: "UsbCd",
        not_offered: "SDCard",
        reset: "ForceRestart",
        not_reset: "PushPowerButton",
    },
    Case {
        tree: "ami.json",
        system: "/redfish/v1/Systems/Self",
        slot: "/redfish/v1/Managers/Self/VirtualMedia/CD1",
        boot: "/redfish/v1/Systems/Self/SD",
        cd: "Cd",
        not_offered: "UsbCd",
        reset: "ForceRestart",
        not_reset: "PushPowerButton",
    },
    Case {
        tree: "two-nodes.json",
        system: "/redfish/v1/Systems/Node2",
        slot: "/redfish/v1/Managers/Node2/VirtualMedia/Cd1",
        boot: "/redfish/v1/Systems/Node2",
        cd: "Cd",
        not_offered: "UsbCd",
        reset: "ForceRestart",
        not_reset: "GracefulShutdown",
    },
];

const IMAGE: &str = "http://127.0.0.1:1/m/token/maintenance.iso";

#[tokio::test]
async fn media_override_and_power_are_played_by_what_the_tree_names() {
    for case in CASES {
        let bmc = Bmc::start(case.tree).await;
        let name = case.tree;
        let before = bmc.get(case.slot).await;
        let target = |slot: &Value, action: &str| {
            let target = &slot["Actions"][format!("#VirtualMedia.{action}Media")]["target"];
            target.as_str().map(str::to_owned)
        };
        let insert = target(&before, "Insert").unwrap();
        assert_eq!(bmc.post(&insert, json!({})).await, 400, "{name}: no image");
        let unknown = json!({"Image": IMAGE, "Speed": 7});
        assert_eq!(bmc.post(&insert, unknown).await, 400, "{name}: an unknown parameter");
        assert_eq!(bmc.get(case.slot).await, before, "{name}: a refusal changes nothing");

        assert_eq!(bmc.post(&insert, json!({"Image": IMAGE})).await, 204, "{name}");
        let filled = bmc.get(case.slot).await;
        assert_eq!(
            (&filled["Image"], &filled["Inserted"]),
            (&json!(IMAGE), &json!(true)),
            "{name}"
        );
        for absent in ["ImageName", "ConnectedVia"] {
            assert_eq!(filled.get(absent).is_some(), before.get(absent).is_some(), "{name}");
        }
        let again = bmc.post(&insert, json!({"Image": IMAGE})).await;
        assert!((400..500).contains(&again), "{name}: an occupied slot took another: {again}");

        let once = |target: &str| {
            json!({"Boot": {
                "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target,
            }})
        };
        assert_eq!(bmc.patch(case.boot, once(case.not_offered)).await, 400, "{name}");
        assert_eq!(bmc.patch(case.boot, once(case.cd)).await, 204, "{name}");
        let boot = bmc.get(case.system).await["Boot"].clone();
        assert_eq!(boot["BootSourceOverrideEnabled"], "Once", "{name}: {boot}");
        assert_eq!(boot["BootSourceOverrideTarget"], case.cd, "{name}: {boot}");

        let system = bmc.get(case.system).await;
        let reset = system["Actions"]["#ComputerSystem.Reset"]["target"].as_str().unwrap();
        for wrong in [json!({"ResetType": case.not_reset}), json!({})] {
            assert_eq!(bmc.post(reset, wrong).await, 400, "{name}");
        }
        assert_eq!(bmc.post(reset, json!({"ResetType": case.reset})).await, 204, "{name}");
        let system = bmc.get(case.system).await;
        assert_eq!(system["PowerState"], "On", "{name}");
        assert_eq!(system["Boot"]["BootSourceOverrideEnabled"], "Disabled", "{name}: once is over");
        assert_eq!(system["Boot"]["BootSourceOverrideTarget"], "None", "{name}: once is over");
        assert_eq!(bmc.post(reset, json!({"ResetType": "ForceOff"})).await, 204, "{name}");
        assert_eq!(bmc.get(case.system).await["PowerState"], "Off", "{name}");

        let eject = target(&filled, "Eject").unwrap();
        assert_eq!(bmc.post(&eject, json!({})).await, 204, "{name}");
        assert_eq!(bmc.get(case.slot).await, before, "{name}: the slot is as it was");
        bmc.replay.stop().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_not_recorded_is_absent() {
    let bmc = Bmc::start("two-nodes.json").await;
    for path in ["/redfish/v1/UpdateService", "/redfish/v1/Systems/Node3", "/redfish"] {
        assert_eq!(bmc.send(Method::GET, path, Value::Null, None).await.status, 404, "{path}");
    }
    let node = "/redfish/v1/Systems/Node1";
    let mode = json!({"Boot": {"BootSourceOverrideMode": "UEFI"}});
    assert_eq!(bmc.patch(node, mode).await, 400, "a property that is not shown");
    assert_eq!(bmc.patch("/redfish/v1/Systems/Node3", json!({"Boot": {}})).await, 404);
    assert_eq!(
        bmc.post(&format!("{node}/Actions/ComputerSystem.Decommission"), json!({})).await,
        404
    );
    assert_eq!(bmc.post(node, json!({})).await, 405);
    // The other node is another machine.
    let reset = format!("{node}/Actions/ComputerSystem.Reset");
    assert_eq!(bmc.post(&reset, json!({"ResetType": "ForceOff"})).await, 204);
    assert_eq!(bmc.get(node).await["PowerState"], "Off");
    assert_eq!(bmc.get("/redfish/v1/Systems/Node2").await["PowerState"], "On");
    bmc.replay.stop().await.unwrap();
}

#[tokio::test]
async fn a_system_whose_settings_object_takes_the_override_ignores_it() {
    let bmc = Bmc::start("ami.json").await;
    let system = "/redfish/v1/Systems/Self";
    let before = bmc.get(system).await;
    let once = json!({"Boot": {
        "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Cd",
    }});
    assert_eq!(bmc.patch(system, once.clone()).await, 204);
    assert_eq!(bmc.get(system).await, before);
    let settings = format!("{system}/SD");
    let read = bmc.send(Method::GET, &settings, Value::Null, None).await;
    let etag = read.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(read.body["@odata.etag"], etag);
    let stale = bmc.send(Method::PATCH, &settings, once.clone(), Some("\"other\"")).await;
    assert_eq!(stale.status, 412);
    let taken = bmc.send(Method::PATCH, &settings, once.clone(), Some(&etag)).await;
    assert_eq!(taken.status, 204);
    assert_eq!(bmc.get(system).await["Boot"]["BootSourceOverrideTarget"], "Cd");
    let again = bmc.send(Method::PATCH, &settings, once, Some(&etag)).await;
    assert_eq!(again.status, 412, "the change has another ETag");
    bmc.replay.stop().await.unwrap();
}

#[tokio::test]
async fn lenovos_slots_are_patched_and_only_ext_takes_urls() {
    let bmc = Bmc::start("lenovo.json").await;
    let media = "/redfish/v1/Managers/1/VirtualMedia";
    for (id, status) in [("RDOC1", 400), ("RDOC2", 400), ("Remote4", 400), ("EXT1", 204)] {
        let path = format!("{media}/{id}");
        let status_now = bmc.patch(&path, json!({"Image": IMAGE, "Inserted": true})).await;
        assert_eq!(status_now, status, "{id}");
        assert_eq!(bmc.get(&path).await["Inserted"], status == 204, "{id}");
    }
    let path = format!("{media}/EXT1");
    assert_eq!(bmc.patch(&path, json!({"Image": null})).await, 204);
    assert_eq!(bmc.get(&path).await["Image"], Value::Null);
    bmc.replay.stop().await.unwrap();
}

#[tokio::test]
async fn members_that_failed_fail_as_they_did() {
    let bmc = Bmc::start("lenovo.json").await;
    let redundant = "/redfish/v1/Managers/Redundant";
    let failed = bmc.send(Method::GET, redundant, Value::Null, None).await;
    assert_eq!((failed.status, failed.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(failed.body["error"]["code"], "Base.1.6.ServiceTemporarilyUnavailable");
    bmc.replay.stop().await.unwrap();
    let bmc = Bmc::start("ami.json").await;
    let failed = bmc.send(Method::GET, "/redfish/v1/Chassis/", Value::Null, None).await;
    assert_eq!(
        (failed.status, failed.headers["content-type"].to_str().unwrap()),
        (500, "text/html")
    );
    assert_eq!(failed.text, "<html><body>Internal error</body></html>");
    bmc.replay.stop().await.unwrap();
}

#[tokio::test]
async fn a_login_gives_a_session_where_the_tree_has_them() {
    for (name, collection, slash) in [
        ("dell", "/redfish/v1/SessionService/Sessions", ""),
        ("hpe.json", "/redfish/v1/SessionService/Sessions/", "/"),
    ] {
        let mut bmc = Bmc::start(name).await;
        let system = bmc.replay.systems[0].path.clone();
        let login = |password: &str| json!({"UserName": "admin", "Password": password});
        let refused = bmc.send(Method::POST, collection, login("wrong"), None).await;
        assert_eq!(refused.status, 401);
        let opened = bmc.send(Method::POST, collection, login("secret"), None).await;
        assert_eq!(opened.status, 201, "{}", opened.text);
        let location = opened.headers["location"].to_str().unwrap().to_owned();
        assert_eq!(location.ends_with('/'), slash == "/", "{location}");
        bmc.token = Some(opened.headers["x-auth-token"].to_str().unwrap().to_owned());
        bmc.get(&system).await;
        let session = bmc.get(&location).await;
        assert_eq!(session["UserName"], "admin");
        let closed = bmc.send(Method::DELETE, &location, Value::Null, None).await;
        assert_eq!(closed.status, 204);
        assert_eq!(bmc.send(Method::GET, &system, Value::Null, None).await.status, 401);
        bmc.replay.stop().await.unwrap();
    }
}

#[test]
fn the_three_forms_of_a_tree_are_one() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let root =
        r##"{"@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot"}"##;
    write("whole/redfish/v1/index.json", &format!("\u{feff}{root}"));
    write("whole/redfish/v1/Systems/index.json", "{\"Members\": []}\0");
    write("short/index.json", root);
    write("short/Systems/index.json", r#"{"Members": []}"#);
    write("below/some/where/redfish/v1/index.json", root);
    write("below/some/where/redfish/v1/Systems/index.json", r#"{"Members": []}"#);
    let systems = r#"{"Members": []}"#;
    write(
        "slashed.json",
        &format!(r#"{{"/redfish/v1/": {root}, "/redfish/v1/Systems/": {systems}}}"#),
    );
    write("short.json", &format!(r#"{{"/": {root}, "Systems": {systems}}}"#));
    let meta = r#""@shoal.capture": {"version": 1}"#;
    write(
        "meta.json",
        &format!(
            r#"{{{meta}, "https://bmc.example/redfish/v1": {root}, "/redfish/v1/Systems": {systems}}}"#
        ),
    );
    for form in ["whole", "short", "below", "slashed.json", "short.json", "meta.json"] {
        let tree = Tree::load(&directory.path().join(form)).unwrap();
        let paths: Vec<_> = tree.bodies().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/redfish/v1", "/redfish/v1/Systems"], "{form}");
        assert_eq!(tree.body("/redfish/v1/Systems/").unwrap()["Members"], json!([]), "{form}");
    }
}

#[test]
fn what_is_wrong_with_a_tree_is_said_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("broken/redfish/v1/index.json", r#"{"@odata.id": "/redfish/v1""#);
    write("rootless/redfish/v1/Systems/index.json", "{}");
    write("list.json", "[]");
    write("rootless.json", r#"{"/redfish/v1/Systems": {}}"#);
    write("status.json", r#"{"/redfish/v1": {"@shoal.status": "gone"}}"#);
    write("headers/redfish/v1/index.json", r#"{"@odata.id": "/redfish/v1"}"#);
    write("headers/redfish/v1/headers.json", r#"{"GET": {"Allow": ["GET"]}}"#);
    std::fs::create_dir(directory.path().join("empty")).unwrap();
    for (name, words) in [
        ("broken", "redfish/v1/index.json is not JSON: EOF"),
        ("rootless", "rootless: there is no service root"),
        ("empty", "empty: there is no service root"),
        ("list.json", "list.json: an object {path: resource} is expected"),
        ("rootless.json", "rootless.json: there is no service root"),
        ("status.json", "\"/redfish/v1\": @shoal.status is not an HTTP status"),
        ("headers", "headers.json: the header \"Allow\" is not a text"),
        ("absent.json", "absent.json: No such file"),
    ] {
        let error = Tree::load(&directory.path().join(name)).unwrap_err();
        let mut told = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            told = format!("{told}: {source}");
        }
        assert!(told.contains(words), "{name}: {told}");
    }
}
