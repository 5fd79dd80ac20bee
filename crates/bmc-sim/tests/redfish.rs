// SPDX-License-Identifier: AGPL-3.0-or-later
//! The BMC from the point of view of its client, over HTTPS, with a real QEMU behind it.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

mod lab;

use bmc_sim::{Firmware, Maker, Settings, Slots};
use lab::{Lab, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SYSTEM: &str = "/redfish/v1/Systems/1";
const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const INSERT_1: &str = "/redfish/v1/Systems/1/VirtualMedia/Cd1/Actions/VirtualMedia.InsertMedia";
const INSERT_2: &str = "/redfish/v1/Systems/1/VirtualMedia/Cd2/Actions/VirtualMedia.InsertMedia";
const EJECT_1: &str = "/redfish/v1/Systems/1/VirtualMedia/Cd1/Actions/VirtualMedia.EjectMedia";

#[tokio::test]
async fn a_machine_reads_its_media_by_ranges_and_a_one_time_boot_is_consumed() {
    let lab = Lab::start().await;
    let boot = json!({ "Boot": {
        "BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideTarget": "Cd",
        "BootSourceOverrideMode": "UEFI",
    }});
    lab.expect(Method::POST, INSERT_1, lab.image("first.iso"), StatusCode::NO_CONTENT).await;
    let patched = lab.expect(Method::PATCH, SYSTEM, boot, StatusCode::OK).await;
    assert_eq!(patched["Boot"]["BootSourceOverrideEnabled"], "Once");
    assert_eq!(patched["PowerState"], "Off");

    lab.expect(Method::POST, RESET, json!({ "ResetType": "On" }), StatusCode::NO_CONTENT).await;
    let on = lab.get(SYSTEM).await;
    assert_eq!(on["PowerState"], "On");
    assert_eq!(on["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    assert_eq!(on["Boot"]["BootSourceOverrideTarget"], "None");
    let mut qmp = lab.qmp().await;
    // The BMC itself read one range, at the insert.
    eventually("ranges of the first medium are read", || lab.media.ranges("/first.iso") > 1).await;
    lab.expect(Method::POST, INSERT_2, lab.image("second.iso"), StatusCode::NO_CONTENT).await;
    // The BMC read it once, at the insert. Its drive reads nothing by itself.
    assert_eq!(lab.media.ranges("/second.iso"), 1);
    lab::read_last_bytes(&mut qmp, "cd2").await;
    assert_eq!(lab.media.ranges("/second.iso"), 2);
    let slot = lab.get("/redfish/v1/Systems/1/VirtualMedia/Cd2").await;
    assert_eq!(slot["Inserted"], true);
    assert_eq!(slot["Image"], lab.media.url("second.iso"));
    assert_eq!(slot["ImageName"], "second.iso");
    assert_eq!(slot["ConnectedVia"], "URI");

    lab.expect(Method::POST, EJECT_1, json!({}), StatusCode::NO_CONTENT).await;
    assert_eq!(lab::inserted(&mut qmp, "cd1").await, None);
    assert_eq!(lab.get("/redfish/v1/Systems/1/VirtualMedia/Cd1").await["Inserted"], false);

    let off = json!({ "ResetType": "ForceOff" });
    lab.expect(Method::POST, RESET, off, StatusCode::NO_CONTENT).await;
    assert_eq!(lab.get(SYSTEM).await["PowerState"], "Off");
    assert!(qmp.execute("query-status", json!({})).await.is_err(), "QEMU still answers");
    assert_eq!(lab.media.whole_reads(), 0, "a medium was read without a range");
    lab.stop().await;
}

#[tokio::test]
async fn only_the_account_and_its_sessions_get_in() {
    let lab = Lab::start().await;
    for (password, path, status) in [
        ("", "/redfish/v1", StatusCode::OK),
        ("", "/redfish/v1/", StatusCode::OK),
        ("", SYSTEM, StatusCode::UNAUTHORIZED),
        ("wrong", SYSTEM, StatusCode::UNAUTHORIZED),
        (lab::PASSWORD, SYSTEM, StatusCode::OK),
        (lab::PASSWORD, "/redfish/v1/Systems/2", StatusCode::NOT_FOUND),
        (lab::PASSWORD, RESET, StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let request = lab.client.get(lab.at(path));
        let request = match password {
            "" => request,
            password => request.basic_auth(lab::USERNAME, Some(password)),
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "GET {path} with password {password:?}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body.get("error").is_some(), !status.is_success(), "{body}");
    }

    let login = |password| json!({ "UserName": lab::USERNAME, "Password": password });
    let post = |body: Value| lab.client.post(lab.at(SESSIONS)).json(&body).send();
    assert_eq!(post(login("wrong")).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let opened = post(login(lab::PASSWORD)).await.unwrap();
    assert_eq!(opened.status(), StatusCode::CREATED);
    let token = opened.headers()["x-auth-token"].clone();
    let location = opened.headers()["location"].to_str().unwrap().to_owned();
    let with_token = |method, path: &str| {
        lab.client.request(method, lab.at(path)).header("x-auth-token", &token).send()
    };
    assert_eq!(with_token(Method::GET, SYSTEM).await.unwrap().status(), StatusCode::OK);
    let closed = with_token(Method::DELETE, &location).await.unwrap();
    assert_eq!(closed.status(), StatusCode::NO_CONTENT);
    let after = with_token(Method::GET, SYSTEM).await.unwrap();
    assert_eq!(after.status(), StatusCode::UNAUTHORIZED);
    lab.stop().await;
}

#[tokio::test]
async fn what_the_bmc_cannot_do_is_refused_and_changes_nothing() {
    let lab = Lab::start().await;
    let (bad, before) = (StatusCode::BAD_REQUEST, lab.get(SYSTEM).await);
    let image = |url: &str| json!({ "Image": url });
    let boot = |property: &str, value: &str| json!({ "Boot": { property: value } });
    for (method, path, body) in [
        (Method::POST, RESET, json!({ "ResetType": "Nmi" })),
        (Method::POST, RESET, json!({})),
        (Method::POST, RESET, json!({ "ResetType": "ForceRestart" })),
        (Method::PATCH, SYSTEM, json!({ "AssetTag": "x" })),
        (Method::PATCH, SYSTEM, boot("BootSourceOverrideMode", "Legacy")),
        (Method::PATCH, SYSTEM, boot("BootSourceOverrideTarget", "Pxe")),
        (Method::POST, INSERT_1, json!({})),
        (Method::POST, INSERT_1, image("ftp://127.0.0.1/a.iso")),
        (Method::POST, INSERT_1, image("http://127.0.0.1:1/a.iso")),
        (Method::POST, INSERT_1, image(&lab.media.url("absent"))),
        (Method::POST, INSERT_1, image(&lab.media.url("rangeless.iso"))),
    ] {
        let answer = lab.expect(method, path, body, bad).await;
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
    assert_eq!(lab.get(SYSTEM).await, before);
    assert_eq!(lab.get("/redfish/v1/Systems/1/VirtualMedia/Cd1").await["Inserted"], false);

    lab.expect(Method::POST, INSERT_1, lab.image("a.iso"), StatusCode::NO_CONTENT).await;
    lab.expect(Method::POST, INSERT_1, lab.image("b.iso"), bad).await;
    let slot = lab.get("/redfish/v1/Systems/1/VirtualMedia/Cd1").await;
    assert_eq!(slot["Image"], lab.media.url("a.iso"));
    lab.stop().await;
}

#[tokio::test]
async fn a_change_with_an_old_etag_is_refused() {
    let lab = Lab::start().await;
    let etag = lab.etag(SYSTEM).await;
    let patch = |target: &str| {
        let body = json!({ "Boot": { "BootSourceOverrideTarget": target } });
        let request = lab.client.patch(lab.at(SYSTEM)).header("if-match", &etag).json(&body);
        request.basic_auth(lab::USERNAME, Some(lab::PASSWORD)).send()
    };
    assert_eq!(patch("Cd").await.unwrap().status(), StatusCode::OK);
    assert_eq!(patch("Hdd").await.unwrap().status(), StatusCode::PRECONDITION_FAILED);
    assert_eq!(lab.get(SYSTEM).await["Boot"]["BootSourceOverrideTarget"], "Cd");
    lab.stop().await;
}

#[tokio::test]
async fn a_boot_override_is_set_again_while_the_machine_is_on() {
    let lab = Lab::start().await;
    let boot = |enabled: &str, target: &str| {
        json!({ "Boot": {
            "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target,
        }})
    };
    // The sequence of another client: the boot device, then the power, then the boot device again.
    lab.expect(Method::PATCH, SYSTEM, boot("Continuous", "Cd"), StatusCode::OK).await;
    lab.expect(Method::POST, RESET, json!({ "ResetType": "On" }), StatusCode::NO_CONTENT).await;
    for (enabled, target) in [
        ("Continuous", "Cd"),
        ("Once", "Cd"),
        ("Disabled", "None"),
        ("Disabled", "None"),
        ("Continuous", "Hdd"),
        ("Continuous", "Cd"),
    ] {
        let patched =
            lab.expect(Method::PATCH, SYSTEM, boot(enabled, target), StatusCode::OK).await;
        assert_eq!(patched["Boot"]["BootSourceOverrideEnabled"], enabled);
        assert_eq!(patched["Boot"]["BootSourceOverrideTarget"], target);
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_stick_is_plugged_in_and_pulled_with_its_medium() {
    let lab = Lab::start_with(Slots::CdAndUsb).await;
    let media = "/redfish/v1/Systems/1/VirtualMedia";
    let listed = lab.get(media).await;
    let names: Vec<&str> = listed["Members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["@odata.id"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(names, ["Cd1", "Usb1"]);
    assert_eq!(lab.get(&format!("{media}/Usb1")).await["MediaTypes"], json!(["USBStick"]));
    let action = |verb: &str| format!("{media}/Usb1/Actions/VirtualMedia.{verb}Media");
    let (insert, eject) = (action("Insert"), action("Eject"));
    let done = StatusCode::NO_CONTENT;
    // A medium that is inserted while the machine is off is there when it starts. Later inserts take effect at once.
    lab.expect(Method::POST, &insert, lab.image("first.iso"), done).await;
    lab.expect(Method::POST, RESET, json!({ "ResetType": "On" }), done).await;
    let mut qmp = lab.qmp().await;
    for name in ["first.iso", "second.iso"] {
        let path = format!("/{name}");
        let before = lab.media.ranges(&path);
        lab::read_last_bytes(&mut qmp, "usb1").await;
        assert!(lab.media.ranges(&path) > before, "{name} is not what is plugged in");
        lab.expect(Method::POST, &eject, json!({}), done).await;
        let blocks = qmp.execute("query-block", json!({})).await.unwrap();
        assert!(!blocks.to_string().contains("peripheral/usb1"), "{blocks}");
        assert_eq!(lab.get(&format!("{media}/Usb1")).await["Inserted"], false);
        lab.expect(Method::POST, &insert, lab.image("second.iso"), done).await;
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_machine_without_media_has_its_firmware_download_the_url_once() {
    let lab = Lab::start_with(Slots::Http).await;
    let system = lab.get(SYSTEM).await;
    assert!(system.get("VirtualMedia").is_none(), "{system}");
    assert_eq!(system["Boot"]["HttpBootUri"], "");
    // The host's loopback, as the machine sees it.
    let url = lab.media.url("first.iso").replace("127.0.0.1", "10.0.2.2");
    let boot = |enabled: &str, uri: Value| {
        json!({ "Boot": {
            "BootSourceOverrideEnabled": enabled,
            "BootSourceOverrideTarget": "UefiHttp",
            "HttpBootUri": uri,
        }})
    };
    for (body, status) in [
        (boot("Continuous", json!(url)), StatusCode::BAD_REQUEST),
        (boot("Once", json!("ftp://10.0.2.2/a.iso")), StatusCode::BAD_REQUEST),
        (boot("Once", json!(7)), StatusCode::BAD_REQUEST),
        (boot("Once", json!(url)), StatusCode::OK),
    ] {
        lab.expect(Method::PATCH, SYSTEM, body, status).await;
    }
    lab.expect(Method::POST, RESET, json!({ "ResetType": "On" }), StatusCode::NO_CONTENT).await;
    let on = lab.get(SYSTEM).await;
    assert_eq!(on["Boot"]["BootSourceOverrideEnabled"], "Disabled");
    assert_eq!(on["Boot"]["HttpBootUri"], url);
    eventually("the firmware downloads it", || lab.media.whole_reads() > 0).await;
    let empty = json!({ "Boot": { "HttpBootUri": null } });
    let patched = lab.expect(Method::PATCH, SYSTEM, empty, StatusCode::OK).await;
    assert_eq!(patched["Boot"]["HttpBootUri"], "");
    lab.stop().await;
}

#[tokio::test]
async fn a_machine_with_media_does_not_offer_to_download() {
    let lab = Lab::start().await;
    for boot in [
        json!({ "BootSourceOverrideTarget": "UefiHttp" }),
        json!({ "HttpBootUri": lab.media.url("first.iso") }),
    ] {
        let body = json!({ "Boot": boot });
        lab.expect(Method::PATCH, SYSTEM, body, StatusCode::BAD_REQUEST).await;
    }
    assert!(lab.get(SYSTEM).await["Boot"].get("HttpBootUri").is_none());
    lab.stop().await;
}

#[tokio::test]
async fn a_dell_shows_its_boards_serial_and_its_tag_as_sku() {
    let lab = Lab::start_as(|settings| Settings {
        maker: Maker::Dell,
        serial: "ABC1234".into(),
        board_serial: Some("CNEXAMPLE00001".into()),
        ..settings
    })
    .await;
    let system = lab.get(SYSTEM).await;
    let text = |pointer: &str| system.pointer(pointer).and_then(Value::as_str);
    assert_eq!(text("/SerialNumber"), Some("CNEXAMPLE00001"));
    assert_eq!(text("/SKU"), Some("ABC1234"));
    assert_eq!(text("/Oem/Dell/DellSystem/NodeID"), Some("ABC1234"));
    assert_eq!(text("/Manufacturer"), Some("Dell Inc."));
    lab.stop().await;
}

#[tokio::test]
async fn a_bios_machine_says_so_and_boots_from_its_cd() {
    let lab = Lab::start_as(|settings| Settings { firmware: Firmware::Bios, ..settings }).await;
    let boot = |mode: &str| {
        json!({ "Boot": {
            "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget": "Cd",
            "BootSourceOverrideMode": mode,
        }})
    };
    lab.expect(Method::POST, INSERT_1, lab.image("first.iso"), StatusCode::NO_CONTENT).await;
    lab.expect(Method::PATCH, SYSTEM, boot("UEFI"), StatusCode::BAD_REQUEST).await;
    let patched = lab.expect(Method::PATCH, SYSTEM, boot("Legacy"), StatusCode::OK).await;
    assert_eq!(patched["Boot"]["BootSourceOverrideMode"], "Legacy");
    assert_eq!(
        patched["Boot"]["BootSourceOverrideMode@Redfish.AllowableValues"],
        json!(["Legacy"])
    );
    lab.expect(Method::POST, RESET, json!({ "ResetType": "On" }), StatusCode::NO_CONTENT).await;
    eventually("its firmware reads the medium", || lab.media.ranges("/first.iso") > 0).await;
    lab.stop().await;
}

#[tokio::test]
async fn a_supermicro_offers_to_eject_an_occupied_slot_only_and_late() {
    let lab = Lab::start_as(|settings| Settings { maker: Maker::Supermicro, ..settings }).await;
    let media = "/redfish/v1/Managers/1/VirtualMedia";
    let [first, second] = ["VirtualMedia1", "VirtualMedia2"].map(|id| format!("{media}/{id}"));
    let collection = lab.get(media).await;
    assert_eq!(collection["Members"], json!([{"@odata.id": first}, {"@odata.id": second}]));
    let [insert, eject] =
        ["Insert", "Eject"].map(|action| format!("{first}/Actions/VirtualMedia.{action}Media"));
    let empty = lab.get(&first).await["Actions"].clone();
    assert_eq!(empty, json!({"#VirtualMedia.InsertMedia": {"target": insert}}));

    lab.expect(Method::POST, &insert, lab.image("first.iso"), StatusCode::NO_CONTENT).await;
    let filled = lab.get(&first).await;
    assert_eq!((&filled["Inserted"], &filled["Actions"]), (&json!(true), &json!({})));
    assert_eq!(filled["Image"], lab.media.url("first.iso"));
    lab.expect(Method::POST, &eject, json!({}), StatusCode::METHOD_NOT_ALLOWED).await;
    let offered = json!({"#VirtualMedia.EjectMedia": {"target": eject}});
    lab.until(&first, |slot| slot["Actions"] == offered).await;
    lab.expect(Method::POST, &eject, json!({}), StatusCode::NO_CONTENT).await;
    assert_eq!(lab.get(&first).await["Actions"], empty);

    let once = |target: &str| {
        json!({"Boot": {
            "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target,
        }})
    };
    for target in ["Cd", "Pxe"] {
        lab.expect(Method::PATCH, SYSTEM, once(target), StatusCode::BAD_REQUEST).await;
    }
    lab.expect(Method::PATCH, SYSTEM, once("UsbCd"), StatusCode::NO_CONTENT).await;
    let system = lab.get(SYSTEM).await;
    assert_eq!(system["Boot"]["BootSourceOverrideTarget"], "UsbCd");
    assert_eq!(
        (&system["Manufacturer"], &system["SerialNumber"]),
        (&json!("Supermicro"), &json!("SN1"))
    );
    let alone = json!({"Boot": {"BootSourceOverrideTarget": "UsbCd"}});
    lab.expect(Method::PATCH, SYSTEM, alone, StatusCode::BAD_REQUEST).await;
    lab.stop().await;
}

#[tokio::test]
async fn a_lenovos_first_slots_refuse_urls_and_its_ext_slots_take_them() {
    let lab = Lab::start_as(|settings| Settings { maker: Maker::Lenovo, ..settings }).await;
    let media = "/redfish/v1/Managers/1/VirtualMedia";
    let collection = lab.get(media).await;
    let members = collection["Members"].as_array().unwrap();
    let ids: Vec<&str> = members
        .iter()
        .map(|slot| slot["@odata.id"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    let remotes = ["Remote1", "Remote2", "Remote3", "Remote4"];
    assert_eq!(ids[..4], ["RDOC1", "RDOC2", "EXT1", "EXT2"]);
    assert_eq!(ids[4..], remotes);

    let patch = |path: String, body: Value, etag: Option<String>| {
        let request = lab.client.patch(lab.at(&path)).json(&body);
        let request = request.basic_auth(lab::USERNAME, Some(lab::PASSWORD));
        let request =
            etag.into_iter().fold(request, |request, etag| request.header("if-match", etag));
        async move { request.send().await.unwrap().status() }
    };
    for (id, status) in [
        ("RDOC1", StatusCode::BAD_REQUEST),
        ("RDOC2", StatusCode::BAD_REQUEST),
        ("Remote1", StatusCode::BAD_REQUEST),
        ("EXT1", StatusCode::NO_CONTENT),
        ("EXT2", StatusCode::NO_CONTENT),
    ] {
        let path = format!("{media}/{id}");
        assert!(lab.get(&path).await.get("Actions").is_none(), "{id} has actions");
        let etag = lab.etag(&path).await;
        let image = lab.image("first.iso");
        let without = patch(path.clone(), image.clone(), None).await;
        assert_eq!(without, StatusCode::PRECONDITION_REQUIRED, "{id}");
        assert_eq!(patch(path.clone(), image.clone(), Some(etag)).await, status, "{id}");
        assert_eq!(lab.get(&path).await["Inserted"], status.is_success(), "{id}");
    }
    let first = format!("{media}/EXT1");
    let etag = lab.etag(&first).await;
    let out = json!({"Image": null, "Inserted": false});
    assert_eq!(patch(first.clone(), out, Some(etag)).await, StatusCode::NO_CONTENT);
    assert_eq!(lab.get(&first).await["Inserted"], false);
    lab.stop().await;
}
