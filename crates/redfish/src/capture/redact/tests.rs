// SPDX-License-Identifier: AGPL-3.0-or-later
//! What must be taken out of a capture, as a table.

use serde_json::json;

use super::*;

fn captured(resources: &[(&str, Value)]) -> Captured {
    let recorded = |(path, body): &(&str, Value)| Recorded {
        path: (*path).into(),
        status: 200,
        body: body.clone(),
        headers: vec![("etag".into(), "\"ABC1234-7\"".into())],
    };
    Captured { resources: resources.iter().map(recorded).collect(), notes: Vec::new() }
}

#[test]
fn nothing_tells_whose_machine_it_is_and_links_still_lead_there() {
    let system = "/redfish/v1/Systems/ABC1234";
    let resources = [
        ("/redfish/v1/Systems", json!({"Members": [{"@odata.id": system}]})),
        (
            system,
            json!({
                "@odata.id": system, "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
                "Manufacturer": "Dell Inc.", "Model": "PowerEdge R660", "SKU": "ABC1234",
                "SerialNumber": "CNEXAMPLE00001", "AssetTag": "Rack 7, shelf 42",
                "UUID": "4c4c4544-0042-4310-8031-c1c04f333231", "HostName": "db7.corp.internal",
                "BiosVersion": "2.1.10.5", "MemorySummary": {"TotalSystemMemoryGiB": 256},
                "Description": "db7.corp.internal (10.20.30.40) of ops@corp.internal",
                "Location": {"PostalAddress": {"City": "Springfield"}},
                "Oem": {"Dell": {"DellSystem": {"NodeID": "ABC1234"}}},
                "Boot": {"BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Cd"]},
            }),
        ),
        (
            "/redfish/v1/Managers/1/EthernetInterfaces/1",
            json!({
                "MACAddress": "D0:8E:79:00:00:01", "FQDN": "idrac-ABC1234.corp.internal",
                "IPv4Addresses": [{
                    "Address": "10.20.30.40", "SubnetMask": "255.255.255.0", "Gateway": "10.20.30.1",
                }],
                "IPv6Addresses": [{"Address": "fe80::d28e:79ff:fe00:1"}],
                "Oem": {"Info": "by d0:8e:79:00:00:01, see https://wiki.corp.internal/x"},
            }),
        ),
        (
            "/redfish/v1/Managers/1/Attributes",
            json!({"Attributes": {
                "Users.2.UserName": "root", "ServerBoot.1.BootOnce": "Disabled",
                "SNMP.1.AgentCommunity": "quite-secret",
            }}),
        ),
        (
            "/redfish/v1/Managers/1/VirtualMedia/1",
            json!({
                "Image": "https://files.corp.internal/token/rescue.iso", "ImageName": "rescue.iso",
                "UserName": "jdoe", "Password": "hunter22",
                "Oem": {"Pem": "-----BEGIN CERTIFICATE-----\nMIIB"},
            }),
        ),
    ];
    let hidden = |text: &str| text.replace("session-token", "***");
    let done = redacted(captured(&resources), "10.20.30.40", "root", &hidden);
    let all = format!("{done:?}");
    for original in [
        "ABC1234",
        "abc1234",
        "EXAMPLE00001",
        "4c4c4544",
        "db7",
        "10.20.30",
        "corp",
        "shelf 42",
        "8E:79",
        "8e:79",
        "d28e",
        "Springfield",
        "quite-secret",
        "root",
        "jdoe",
        "hunter22",
        "rescue",
        "MIIB",
        "ops@",
    ] {
        assert!(!all.contains(original), "{original} is left: {all}");
    }
    let [attributes, interface, slot, systems, system] = &done.resources[..] else {
        panic!("{done:?}");
    };
    assert_eq!(systems.body["Members"][0]["@odata.id"], system.path);
    assert_eq!(system.body["@odata.id"], system.path);
    assert_eq!(system.body["Oem"]["Dell"]["DellSystem"]["NodeID"], system.body["SKU"]);
    for (kept, expected) in [
        ("/Manufacturer", json!("Dell Inc.")),
        ("/Model", json!("PowerEdge R660")),
        ("/BiosVersion", json!("2.1.10.5")),
        ("/MemorySummary/TotalSystemMemoryGiB", json!(256)),
        ("/@odata.type", json!("#ComputerSystem.v1_20_0.ComputerSystem")),
        ("/Boot/BootSourceOverrideTarget@Redfish.AllowableValues", json!(["None", "Cd"])),
    ] {
        assert_eq!(system.body.pointer(kept), Some(&expected), "{kept}");
    }
    let address = &interface.body["IPv4Addresses"][0];
    assert_eq!(address["SubnetMask"], "255.255.255.0");
    let text = system.body["Description"].as_str().unwrap();
    assert!(text.contains(address["Address"].as_str().unwrap()), "{text}");
    assert!(text.contains(system.body["HostName"].as_str().unwrap()), "{text}");
    let mac = interface.body["MACAddress"].as_str().unwrap().to_lowercase();
    assert!(interface.body["Oem"]["Info"].as_str().unwrap().contains(&mac));
    assert_eq!(attributes.body["Attributes"], json!({"ServerBoot.1.BootOnce": "Disabled"}));
    assert_eq!(slot.body["Password"], SECRET);
}

/// A description, a BMC's properties, and the parts of them that must be removed.
const TELLING: &[(&str, &str, &[&str])] = &[
    (
        "password",
        r#"{"Password": "hunter22", "AdminPwd": "hunter23", "PIN": 4711}"#,
        &["hunter", "4711"],
    ),
    ("token", r#"{"RemoteToken": "t0ken-abc", "Oem": {"SessionId": "s3ss"}}"#, &["t0ken", "s3ss"]),
    ("secrets of secrets", r#"{"Secrets": {"One": ["abc", {"Two": "def"}]}}"#, &["abc", "def"]),
    (
        "snmp",
        r#"{"SNMP": {"CommunityNames": ["pub1ic"], "TrapCommunity": "tr4p"}}"#,
        &["pub1ic", "tr4p"],
    ),
    (
        "serial",
        r#"{"SerialNumber": "ABC1234", "@odata.id": "/redfish/v1/Chassis/abc1234"}"#,
        &["ABC1234", "abc1234"],
    ),
    ("serial of letters", r#"{"SerialNumber": "JKLMNPQ", "Info": "of JKLMNPQ"}"#, &["JKLMNPQ"]),
    ("short serial", r#"{"SerialNumber": "A12", "Info": "is A12."}"#, &["A12"]),
    ("serial as number", r#"{"SerialNumber": 12345678, "Info": "no 12345678"}"#, &["12345678"]),
    (
        "serial with a space",
        r#"{"SerialNumber": "AB 1234", "@odata.id": "/redfish/v1/x/AB%201234"}"#,
        &["AB 1234", "AB%201234"],
    ),
    (
        "other names of serials",
        r#"{"BoardSN": "A1B2C3", "ChassisSerial": "D4E5F6", "SvcTag": "G7H8J9"}"#,
        &["A1B2C3", "D4E5F6", "G7H8J9"],
    ),
    ("serial of no known property", r#"{"Oem": {"Thing": "437XR1138R2"}}"#, &["437XR1138R2"]),
    ("serial in a key", r#"{"SerialNumber": "ABC1234", "ABC1234": {"x": 1}}"#, &["ABC1234"]),
    (
        "serial in a version",
        r#"{"SerialNumber": "ABC1234", "FirmwareVersion": "1.2 (ABC1234)"}"#,
        &["ABC1234"],
    ),
    ("serial in base64", r#"{"Blob": "c2VyaWFsIEFCQzEyMzQ="}"#, &["c2Vya"]),
    (
        "uuid",
        r#"{"UUID": "4c4c4544-0042-4310-8031-c1c04f333231", "Guid": "4C4C4544004243108031C1C04F333231"}"#,
        &["4c4c4544", "4C4C4544"],
    ),
    (
        "uuid in a text",
        r#"{"Message": "of {4c4c4544-0042-4310-8031-c1c04f333231}."}"#,
        &["4c4c4544"],
    ),
    (
        "mac",
        r#"{"MACAddress": "D0:8E:79:00:00:01", "Id": "NIC-d08e79000001", "x": "d0-8e-79-00-00-01"}"#,
        &["8E:79", "d08e79", "8e-79"],
    ),
    ("mac as of cisco", r#"{"x": "port d08e.7900.0001"}"#, &["d08e"]),
    (
        "mac of digits",
        r#"{"MACAddress": "12:34:56:78:90:12", "Id": "123456789012"}"#,
        &["34:56", "123456789012"],
    ),
    (
        "mac in a key",
        r#"{"Ports": {"D0:8E:79:00:00:01": {"x": 1}, "d08e79000002": 2}}"#,
        &["8E:79", "d08e79"],
    ),
    (
        "wwn",
        r#"{"WWN": "5000C500A1B2C3D4", "x": "0x5000c500a1b2c3d4", "y": "naa.5000c500a1b2c3d5"}"#,
        &["A1B2C3", "a1b2c3"],
    ),
    ("iqn", r#"{"x": "iqn.2015-02.com.hpe:uefi-u30"}"#, &["hpe", "u30"]),
    (
        "addresses",
        r#"{"Address": "10.20.30.40", "Gateway": "10.20.30.1", "x": "at 10.20.30.41:443, fe80::d28e:1%eth0"}"#,
        &["10.20.30", "d28e"],
    ),
    (
        "address in a host's name",
        r#"{"Address": "10.20.30.40", "x": "ip-10-20-30-40"}"#,
        &["10-20-30"],
    ),
    (
        "address as a host",
        r#"{"HostName": "10.20.30.40", "NTPServers": ["oak", "10.20.30.5"]}"#,
        &["10.20.30", "oak"],
    ),
    (
        "host",
        r#"{"HostName": "oak", "Description": "This is oak", "@odata.id": "/redfish/v1/Systems/oak"}"#,
        &["oak"],
    ),
    ("host of no known property", r#"{"x": "see db7.corp.internal."}"#, &["db7", "corp"]),
    (
        "short name of a host",
        r#"{"FQDN": "idrac-7.corp.internal", "x": "on IDRAC-7"}"#,
        &["idrac-7", "IDRAC-7", "corp"],
    ),
    (
        "mail",
        r#"{"EmailAddress": "ops@corp.internal", "x": "ask root@oak"}"#,
        &["ops", "corp", "root", "oak"],
    ),
    ("user", r#"{"UserName": "jdoe", "Message": "The user jdoe logged in"}"#, &["jdoe"]),
    (
        "user in a link",
        r#"{"UserName": "jdoe", "x": {"@odata.id": "/redfish/v1/AccountService/Accounts/jdoe"}}"#,
        &["jdoe"],
    ),
    ("login of this visit", r#"{"MessageArgs": ["visitor"], "x": "by visitor"}"#, &["visitor"]),
    (
        "url with a login",
        r#"{"x": "from https://u5er:pa55@files/iso/x.iso?sig=abc, and nfs://10.0.0.9/x"}"#,
        &["u5er", "pa55", "files", "sig=", "10.0.0.9"],
    ),
    ("share", r#"{"Image": "//files/share/x.iso", "x": "//files/share"}"#, &["files", "share"]),
    (
        "image",
        r#"{"Image": "https://files.corp/t0ken/rescue.iso", "ImageName": "rescue.iso", "Boot": {"HttpBootUri": "http://oak/x"}}"#,
        &["files", "t0ken", "rescue", "oak"],
    ),
    (
        "certificate",
        r#"{"Subject": {"CommonName": "oak", "City": "Ulm"}, "Issuer": {"Organization": "ACME"}, "Pem": "-----BEGIN CERTIFICATE-----\nMIIB"}"#,
        &["oak", "Ulm", "ACME", "MIIB"],
    ),
    (
        "fingerprint",
        r#"{"x": "SHA256 AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01", "y": "abcdef0123456789abcdef0123456789abcdef01"}"#,
        &["EF:01", "abcdef01"],
    ),
    (
        "place",
        r#"{"Location": "Rack 7 in Ulm", "Contact": "Jo", "GeoLocation": {"Latitude": 48.39}}"#,
        &["Ulm", "Jo", "48.39"],
    ),
    ("directory", r#"{"LDAP": {"BaseDistinguishedNames": ["DC=corp,DC=oak"]}}"#, &["corp", "oak"]),
    (
        "password of this visit",
        r#"{"x": "login visitor:s3cret-pw failed"}"#,
        &["s3cret-pw", "visitor"],
    ),
    ("web token", r#"{"x": "eyJhbGciOiJIUzI1NiJ9eyJzdWIiOiIxMjM0NTY3ODkwIn0"}"#, &["eyJ"]),
];

fn of_visit(body: &Value) -> Captured {
    let hidden = |text: &str| text.replace("s3cret-pw", SECRET);
    redacted(captured(&[("/redfish/v1/x", body.clone())]), "192.0.2.7", "visitor", &hidden)
}

#[test]
fn what_tells_whose_machine_it_is_is_not_left_and_a_second_pass_changes_nothing() {
    for (what, body, originals) in TELLING {
        let done = of_visit(&serde_json::from_str(body).unwrap());
        let body = &done.resources[0].body;
        for original in *originals {
            assert!(!body.to_string().contains(original), "{what}: {original} is left: {body}");
        }
        assert_eq!(of_visit(body).resources[0].body, *body, "{what}");
    }
}

#[test]
fn one_name_has_one_replacement_however_it_is_written() {
    let done = of_visit(&json!({
        "UUID": "4c4c4544-0042-4310-8031-c1c04f333231", "Guid": "4C4C4544004243108031C1C04F333231",
        "MACAddress": "D0:8E:79:00:00:01", "Id": "NIC-d08e79000001",
        "SerialNumber": "ABC1234", "FQDN": "idrac-ABC1234.corp.internal",
        "@odata.id": "https://192.0.2.7/redfish/v1/Systems/abc1234",
    }));
    let expected = json!({
        "UUID": "00000000-0000-4000-8000-000000000001", "Guid": "00000000000040008000000000000001",
        "MACAddress": "02:00:00:00:00:01", "Id": "NIC-020000000001",
        "SerialNumber": "XSN0001", "FQDN": "host-1.example",
        "@odata.id": "/redfish/v1/Systems/XSN0001",
    });
    assert_eq!(done.resources[0].body, expected);
}

#[test]
fn what_a_client_goes_by_stays() {
    let kept = json!({
        "@odata.id": "/redfish/v1/Systems/System.Embedded.1",
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "@odata.context": "/redfish/v1/$metadata#ComputerSystem.ComputerSystem",
        "Manufacturer": "Dell Inc.", "Model": "PowerEdge R660", "PartNumber": "0HR5XJA00",
        "BiosVersion": "2.1.10.5", "FirmwareVersion": "AFBT20X 1.89", "Id": "RDOC1",
        "MediaTypes": ["CD", "USBStick"], "TransferProtocolType": "HTTPS",
        "Status": {"State": "Enabled", "Health": "OK"}, "RMediaStatus": "Disabled",
        "Boot": {"BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Cd", "UefiHttp"]},
        "Actions": {"#VirtualMedia.InsertMedia": {
            "target": "/redfish/v1/Managers/1/VirtualMedia/CD1/Actions/VirtualMedia.InsertMedia",
            "@Redfish.ActionInfo": "/redfish/v1/Managers/1/InsertMediaActionInfo",
        }},
        "MessageId": "Base.1.8.InsufficientPrivilege", "DateTime": "2026-11-30T12:17:08+00:00",
        "$schema": "https://redfish.dmtf.org/schemas/v1/ComputerSystem.json",
        "Oem": {"Hpe": {"PostState": "InPostDiscoveryComplete"}}, "Size": 1_099_511_627_776_u64,
    });
    assert_eq!(of_visit(&kept).resources[0].body, kept);
}

#[test]
fn what_stands_for_nothing_stays() {
    let nothing = json!({
        "SerialNumber": ", , ,", "AssetTag": "", "SKU": "To be filled by O.E.M.", "UserName": null,
        "UUID": "00000000-0000-0000-0000-000000000000", "HostName": "localhost", "Image": "",
        "MACAddress": "00:00:00:00:00:00", "FirmwareVersion": "6.10.30.20",
        "Address": "0.0.0.0", "SubnetMask": "255.255.254.0", "Other": "127.0.0.1 and ::1",
    });
    let done =
        redacted(captured(&[("/redfish/v1/x", nothing.clone())]), "", "", &|text| text.into());
    assert_eq!(done.resources[0].body, nothing);
}
