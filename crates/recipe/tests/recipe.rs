// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is a recipe and what is not; and that it comes back whole from every journey.

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
fn each_mistake_is_told_with_its_place_and_the_cure() {
    let with = |pointer: &str, value: Value| {
        let mut recipe = linux();
        *recipe.pointer_mut(pointer).unwrap() = value;
        recipe
    };
    let put = |key: &str, value: Value| {
        let mut recipe = linux();
        recipe[key] = value;
        recipe
    };
    let without = |key: &str| {
        let mut recipe = linux();
        recipe.as_object_mut().unwrap().remove(key);
        recipe
    };
    for (recipe, expected) in [
        (
            with("/partition_layout/2/size", "10 potatoes".into()),
            "/partition_layout/2/size value: \"10 potatoes\" is not valid here; write 512M, 20G or 100%",
        ),
        (without("target_disk"), "/target_disk required: target_disk is missing"),
        (without("oci_url"), "/oci_url required: oci_url is missing"),
        (without("partition_layout"), "/partition_layout required: partition_layout is missing"),
        (put("disk", "sda".into()), "/disk unknown-field: \"disk\" is not a field of a recipe"),
        (
            with("/target_disk", "/dev/../../etc/passwd".into()),
            "/target_disk value: \"/dev/../../etc/passwd\"",
        ),
        (with("/target_disk", "/dev/disk/by-id/../../sda".into()), "/target_disk value"),
        (with("/target_disk", json!({})), "/target_disk value: this object"),
        (with("/task_target", "install linux".into()), "/task_target value: \"install linux\""),
        (with("/oci_url", "file:///etc/passwd".into()), "/oci_url value"),
        (with("/oci_url", "controller/../x:1".into()), "/oci_url value"),
        (
            with("/user_data", "x".repeat((1 << 20) + 1).into()),
            "/user_data too-long: longer than 1048576",
        ),
        (with("/partition_layout/0/type_guid", "8300".into()), "/partition_layout esp-missing"),
        (
            with("/partition_layout/0/format", "ext4".into()),
            "/partition_layout/0/format esp-format",
        ),
        (
            with("/partition_layout/0/type_guid", "zzzz".into()),
            "/partition_layout/0/type_guid value",
        ),
        (
            with("/partition_layout/0/type_guid", "1234".into()),
            "/partition_layout/0/type_guid type",
        ),
        (
            with("/partition_layout/0/size", "100%".into()),
            "/partition_layout/0/size remaining-not-last",
        ),
        (
            with("/partition_layout/0/label", "twelve_chars".into()),
            "/partition_layout/0/label label-too-long: a label of vfat has at most 11",
        ),
        (
            with("/partition_layout/2/format", "zfs".into()),
            "/partition_layout/2/format value: \"zfs\"",
        ),
        (with("/partition_layout/2/format", "swap".into()), "/partition_layout root"),
        (
            with(
                "/partition_layout/2",
                json!({"size": "4M", "type_guid": "8300", "format": "ext4"}),
            ),
            "/partition_layout/2/size too-small: too small for ext4; at least 8M",
        ),
        (with("/partition_layout/1/label", "data".into()), "/partition_layout cidata-missing"),
        (put("wipe", "yes".into()), "/wipe value: \"yes\" is not valid here; write \"any\""),
        (put("env", json!({"A": "b\nc"})), "/env/A value"),
        (
            put("recipe_version", 2.into()),
            "/recipe_version value: 2 is not valid here; write 0 or 1",
        ),
        (
            put(
                "network",
                json!({"interfaces": [{"macs": ["52:54:00:12:34:56"], "addresses": ["192.0.2.1/33"]}]}),
            ),
            "/network/interfaces/0/addresses/0 address",
        ),
        (json!({"task_target": "install-esxi.target"}), " value"),
        (
            json!({"task_target": "firmware-update.target", "firmware_url": "file:///dev/zero"}),
            "/firmware_url value",
        ),
        (json!([]), " schema"),
    ] {
        let problems = parse(&recipe).unwrap_err();
        assert!(problems.iter().any(|p| p.starts_with(expected)), "{expected}\n{problems:#?}");
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
    value["user_data"] = "CANARY".into();
    value["env"] = json!({"TOKEN": "CANARY"});
    let recipe = parse(&value).unwrap();
    let shown = format!("{} {recipe:?}", recipe.redacted());
    assert_eq!(recipe.redacted()["user_data"], json!({"bytes": 6}));
    assert!(!recipe.redacted().to_string().contains("CANARY"), "{shown}");
}

fn attempt() -> Attempt {
    Attempt {
        job_id: "0198b9c0-0000-7000-8000-000000000001".into(),
        attempt_id: "a1".into(),
        server_serial: "SN1".into(),
        controller_url: "https://192.0.2.5:8443".into(),
        controller_ca_pem: Some("pem".into()),
        token: "secret".to_owned().into(),
        registry: Some(RegistryAccess { authority: "192.0.2.5:8443".into() }),
        artifact_digest: None,
    }
}

#[test]
fn a_recipe_travels_to_the_machine_and_its_tools() {
    for value in valid() {
        let recipe = parse(&value).unwrap();
        let medium = task_medium::files(&recipe, &attempt());
        let (arrived, told) = task_medium::read(&medium).unwrap();
        assert_eq!((&arrived, &told), (&recipe, &attempt()));
        let identity = run_dir::Identity {
            job_id: told.job_id.clone(),
            attempt_id: told.attempt_id.clone(),
            server_serial: "SN1".into(),
            boot_id: "b1".into(),
            disk: None,
        };
        let files = run_dir::files(&arrived, &identity);
        assert_eq!(run_dir::read(&files).unwrap(), (recipe, identity));
        let all: Vec<u8> = files.into_iter().flat_map(|file| file.bytes).collect();
        assert!(!String::from_utf8(all).unwrap().contains("secret"), "no token in /run/provision");
    }
}

#[test]
fn env_values_are_escaped_and_the_volume_id_fits() {
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
    assert!(env.contains("PROXY=\"http://\\\"\\$x\\`\\\\y\"\n"), "{env}");
    assert!(env.contains("TARGET_DISK=\"/dev/vda\"\n"), "{env}");
    let id = task_medium::volume_id(&attempt().job_id);
    assert_eq!((id.as_str(), id.len()), ("TASK_0198B9C00000700080000000000", 32));
}

proptest! {
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
