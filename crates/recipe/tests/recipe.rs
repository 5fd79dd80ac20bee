// SPDX-License-Identifier: AGPL-3.0-or-later
//! Valid and invalid recipes, and round trips of recipes through every format.

use proptest::prelude::*;
use recipe::task_medium::{Attempt, RegistryAccess};
use recipe::{Recipe, run_dir, task_medium};
use serde_json::{Value, json};

fn linux() -> Value {
    json!({
        "task_target": "install-linux.target",
        "target_disk": "/dev/disk/by-id/nvme-eui.0025388b91d4d5b6",
        "oci_url": "controller/os-images/debian:13",
        "partition_layout": [
            {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
            {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "cidata"},
            {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"}
        ],
        "user_data": "#cloud-config\n"
    })
}

fn parse(value: &Value) -> Result<Recipe, Vec<String>> {
    Recipe::parse(value.to_string().as_bytes()).map_err(|problems| {
        problems.into_iter().map(|p| format!("{} {}: {}", p.path, p.code, p.message)).collect()
    })
}

fn valid() -> Vec<Value> {
    let mut old = linux();
    old["recipe_version"] = 0.into();
    let mut hints = linux();
    hints["target_disk"] = json!({"serial": "S1", "wwn": "0x5000c500a1b2c3d4", "size": ">=100G"});
    hints["wipe"] = json!({"expect": ["gpt", "ext4"]});
    hints["metadata"] = json!({"rack": {"row": 7}});
    hints["env"] = json!({"PROXY": "http://\"$x`\\y"});
    hints["network"] = json!({"interfaces": [{
        "macs": ["52:54:00:12:34:56", "52:54:00:12:34:57"], "bond": "802.3ad", "vlan": 7,
        "addresses": ["192.0.2.10/24", "2001:db8::10/64"], "gateways": ["192.0.2.1"],
        "nameservers": ["2001:db8::53"]
    }]});
    let mut all_payloads = linux();
    all_payloads["meta_data"] = "instance-id: 1\n".into();
    all_payloads["network_config"] = "version: 2\n".into();
    vec![
        linux(),
        old,
        hints,
        json!({
            "task_target": "install-windows.target", "target_disk": "sda",
            "oci_url": "controller:5000/os-images/windows@sha256:".to_owned() + &"a".repeat(64),
            "wim_index": 2, "unattend_xml": "<unattend/>"
        }),
        json!({"task_target": "install-esxi.target", "ks_cfg": "vmaccepteula\n"}),
        json!({"task_target": "install-esxi.target", "ks.cfg": "vmaccepteula\n"}),
        json!({
            "task_target": "firmware-update.target",
            "firmware_url": "https://files.example/bios.bin", "firmware_sha256": "0".repeat(64)
        }),
        json!({"task_target": "burn-in.target"}),
        all_payloads,
    ]
}

#[test]
fn every_valid_recipe_comes_back_from_its_canonical_form() {
    for value in valid() {
        let recipe = parse(&value).unwrap_or_else(|problems| panic!("{value:#}: {problems:#?}"));
        let again = Recipe::parse(&recipe.to_json()).unwrap();
        assert_eq!(again, recipe);
        assert_eq!(again.to_json(), recipe.to_json());
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let mut recipe = linux();
    recipe["partition_layout"][0]["size"] = "?".into();
    recipe["x"] = 1.into();
    recipe["wipe"] = 2.into();
    assert_eq!(parse(&recipe).unwrap_err().len(), 3);
}

#[test]
fn deep_and_large_input_is_refused_before_it_is_read() {
    let deep = "[".repeat(1 << 20);
    assert_eq!(Recipe::parse(deep.as_bytes()).unwrap_err()[0].code, "too-deep");
    let large = " ".repeat(recipe::BODY_BYTES_MAX + 1);
    assert_eq!(Recipe::parse(large.as_bytes()).unwrap_err()[0].code, "too-large");
}

#[test]
fn payloads_are_not_shown() {
    let mut value = linux();
    value["user_data"] = "#!CANARY".into();
    value["env"] = json!({"TOKEN": "CANARY"});
    let recipe = parse(&value).unwrap();
    let shown = format!("{} {recipe:?}", recipe.redacted());
    assert_eq!(recipe.redacted()["user_data"], json!({"bytes": 8}));
    assert!(!shown.contains("CANARY"), "{shown}");
}

fn attempt() -> Attempt {
    Attempt {
        job_id: "0198b9c0-0000-7000-8000-000000000001".into(),
        attempt_id: "a1".into(),
        server_serial: "SN1".into(),
        machine_names: recipe::machine::Names::default(),
        ignores_uuid: false,
        controller_url: "https://192.0.2.5:8443".into(),
        controller_ca_pem: Some("pem".into()),
        token: "secret".to_owned().into(),
        registry: Some(RegistryAccess {
            authority: "192.0.2.5:8443".into(),
            token: "secret-to-pull".to_owned().into(),
        }),
        artifact_digest: None,
        withholds_secrets: false,
    }
}

#[test]
fn a_medium_that_others_can_read_has_no_secret_and_is_a_recipe_nevertheless() {
    let mut seen = 0;
    for mut value in valid() {
        for key in ["user_data", "meta_data", "network_config", "unattend_xml"] {
            if let Some(payload) = value.get_mut(key) {
                *payload = format!("#cloud-config\n# CANARY of {key}").into();
                seen += 1;
            }
        }
        if let Some(env) = value.get_mut("env") {
            *env = json!({"TOKEN": "CANARY"});
            seen += 1;
        }
        let recipe = parse(&value).unwrap();
        let open = recipe.without_secrets();
        assert_eq!(Recipe::parse(&open.to_json()).unwrap(), open);
        assert_eq!(open.without_secrets(), open);
        assert_eq!((open.target_disk(), open.layout()), (recipe.target_disk(), recipe.layout()));
        let withholding = Attempt { withholds_secrets: true, ..attempt() };
        let files = task_medium::files(&recipe, &withholding);
        let bytes: Vec<u8> = files.iter().flat_map(|file| file.bytes.clone()).collect();
        assert!(!String::from_utf8(bytes).unwrap().contains("CANARY"), "{value}");
        assert_eq!(task_medium::read_recipe(&files).unwrap(), open);
        assert!(task_medium::read_attempt(&files).unwrap().withholds_secrets);
    }
    assert_eq!(seen, 8);
}

#[test]
fn a_recipe_travels_to_the_machine_and_its_tools() {
    for value in valid() {
        let recipe = parse(&value).unwrap();
        let medium = task_medium::files(&recipe, &attempt());
        let told = task_medium::read_attempt(&medium).unwrap();
        let arrived = task_medium::read_recipe(&medium).unwrap();
        assert_eq!((&arrived, &told), (&recipe, &attempt()));
        let identity = run_dir::Identity {
            job_id: told.job_id.clone(),
            attempt_id: told.attempt_id.clone(),
            server_serial: "SN1".into(),
            boot_id: "b1".into(),
            disk: None,
        };
        assert_eq!(run_dir::pull_access(&told).unwrap().token.as_str(), "secret-to-pull");
        let files = run_dir::files(&arrived, &identity);
        assert_eq!(run_dir::read(&files).unwrap(), (recipe, identity));
        let all: Vec<u8> = files.into_iter().flat_map(|file| file.bytes).collect();
        assert!(!String::from_utf8(all).unwrap().contains("secret"), "no token in /run/provision");
    }
}

#[test]
fn env_values_are_as_written_and_the_volume_id_fits() {
    let recipe = parse(&valid()[2]).unwrap();
    let identity = run_dir::Identity {
        job_id: "j".into(),
        attempt_id: "a".into(),
        server_serial: "SN1".into(),
        boot_id: "b".into(),
        disk: Some(recipe::DiskFacts { name: "vda".into(), ..Default::default() }),
    };
    let files = run_dir::files(&recipe, &identity);
    let env = String::from_utf8(files[0].bytes.clone()).unwrap();
    // podman's --env-file uses everything after `=`, including quotes and backslashes.
    assert!(env.contains("PROXY=http://\"$x`\\y\n"), "{env}");
    assert!(env.contains("TARGET_DISK=/dev/vda\n"), "{env}");
    let id = task_medium::volume_id(&attempt().job_id);
    assert_eq!((id.as_str(), id.len()), ("TASK_0198B9C00000700080000000000", 32));
}

#[test]
fn a_payload_is_measured_in_bytes() {
    let mut value = linux();
    value["user_data"] = format!("#!{}", "é".repeat(1 << 19)).into();
    let expected = "/user_data too-long: 1048578 bytes; at most 1048576 are taken";
    assert_eq!(parse(&value).unwrap_err(), [expected]);
    value["user_data"] = format!("#!{}", "é".repeat((1 << 19) - 1)).into();
    assert!(parse(&value).is_ok());
    let kickstart = json!({"task_target": "install-esxi.target", "ks.cfg": "é".repeat(131_073)});
    let expected = "/ks_cfg too-long: 262146 bytes; at most 262144 are taken";
    assert_eq!(parse(&kickstart).unwrap_err(), [expected]);
}

#[test]
fn the_order_of_keys_changes_nothing() {
    let one =
        br#"{"task_target": "a.target", "metadata": {"x": {"b": 1, "a": [{"d": 2, "c": 3}]}}}"#;
    let two =
        br#"{"metadata": {"x": {"a": [{"c": 3, "d": 2}], "b": 1}}, "task_target": "a.target"}"#;
    let json = |bytes: &[u8]| Recipe::parse(bytes).unwrap().to_json();
    assert_eq!(json(one), json(two));
}

#[test]
fn a_recipe_that_grows_beyond_the_limit_is_refused_at_once() {
    let mut value = linux();
    value["metadata"] = json!({"x": vec![json!([]); 800_000]});
    assert_eq!(Recipe::parse(value.to_string().as_bytes()).unwrap_err()[0].code, "too-large");
}

#[test]
fn a_serial_with_a_line_break_is_no_line_of_its_own() {
    let identity = run_dir::Identity {
        job_id: "j".into(),
        attempt_id: "a".into(),
        server_serial: "SN1\nTARGET_DISK=/dev/sdb".into(),
        boot_id: "b".into(),
        disk: None,
    };
    let files = run_dir::files(&parse(&linux()).unwrap(), &identity);
    assert!(!String::from_utf8(files[0].bytes.clone()).unwrap().contains("sdb"));
    assert_eq!(run_dir::read(&files).unwrap().1, identity);
}

proptest! {
    #[test]
    fn any_number_in_metadata_comes_back_or_is_refused(number in any::<f64>(), digits in "[0-9]{1,30}\\.[0-9]{1,30}") {
        for text in [number.to_string(), digits] {
            let bytes = format!(r#"{{"task_target": "a.target", "metadata": {{"x": {text}}}}}"#);
            if let Ok(recipe) = Recipe::parse(bytes.as_bytes()) {
                prop_assert_eq!(Recipe::parse(&recipe.to_json()).unwrap(), recipe);
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _answered = Recipe::parse(&bytes).is_ok();
    }

    #[test]
    fn any_text_in_a_field_is_answered(text in ".{0,80}", key in "target_disk|oci_url|task_target|user_data|wipe") {
        let mut value = linux();
        value[key] = text.into();
        if let Ok(recipe) = parse(&value) {
            prop_assert_eq!(Recipe::parse(&recipe.to_json()).unwrap(), recipe);
        }
    }
}
