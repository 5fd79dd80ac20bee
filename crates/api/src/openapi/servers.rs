// SPDX-License-Identifier: AGPL-3.0-or-later
//! Servers and the way to their BMCs.

use serde_json::{Value, json};

use super::operation::{
    Access, BODY, INTERNAL, Operation, PATH, Problem, QUERY, STORAGE, answer, body, empty,
    path_parameter, query_parameter,
};

const UNKNOWN: Problem = (404, "server-unknown", "no server has this serial");
const CREDENTIALS: Problem =
    (409, "credentials-refused", "the BMC refused the credentials before; set them anew");
const UNUSABLE: Problem = (
    409,
    "server-unusable",
    "what is stored of its BMC is of no use, as a password of another key; set it anew",
);
const BMC: Problem = (502, "bmc", "the BMC cannot be reached, is not trusted, or refuses");
const RESTING: Problem = (
    503,
    "bmc-resting",
    "the BMC did not answer several times; `detail` says when it is asked again",
);
const PIN: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

pub fn operations() -> Vec<Operation> {
    vec![
        list(),
        show(),
        put(),
        delete(),
        probe(),
        power(),
        boot(),
        capture(),
        firmware(),
        update_firmware(),
        firmware_update(),
    ]
}

fn list() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/servers",
        id: "listServers",
        tag: "servers",
        summary: "List servers by serial",
        description: "",
        access: Access::Reader,
        parameters: Vec::new(),
        body: None,
        answers: vec![(
            200,
            answer("All servers", "ServerList", json!({"servers": [server_example()]})),
        )],
        problems: vec![STORAGE],
    }
}

fn show() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/servers/{serial}",
        id: "showServer",
        tag: "servers",
        summary: "Show a server",
        description: "",
        access: Access::Reader,
        parameters: vec![serial()],
        body: None,
        answers: vec![(200, answer("The server", "Server", server_example()))],
        problems: vec![PATH, UNKNOWN, STORAGE],
    }
}

fn put() -> Operation {
    let problems = [
        BODY.as_slice(),
        &[
            PATH,
            (
                400,
                "server-invalid",
                "the serial, the URL, an unknown profile or a missing password; `errors` says which",
            ),
            (409, "conflict", "the server has an open job"),
            (422, "server-invalid", "the pin or the CA is not usable, or both are given"),
            INTERNAL,
            (502, "bmc-unreachable", "no certificate is given, and the BMC shows none to pin"),
            STORAGE,
        ],
    ]
    .concat();
    Operation {
        method: "put",
        path: "/api/v1/servers/{serial}",
        id: "putServer",
        tag: "servers",
        summary: "Create a server, or replace how it is reached",
        description: "Without `certificate_sha256` and `ca_pem` the controller connects to a new BMC once, to pin the certificate that it shows. A password that is left out stays, as long as the URL does.",
        access: Access::Admin,
        parameters: vec![serial()],
        body: body(
            "ServerSpec",
            json!({"bmc": {"url": "https://192.0.2.77", "username": "admin", "password": "secret"}}),
        ),
        answers: vec![
            (200, answer("Replaced", "Server", server_example())),
            (201, answer("Created", "Server", server_example())),
        ],
        problems,
    }
}

fn delete() -> Operation {
    Operation {
        method: "delete",
        path: "/api/v1/servers/{serial}",
        id: "deleteServer",
        tag: "servers",
        summary: "Forget a server",
        description: "Its jobs stay.",
        access: Access::Admin,
        parameters: vec![serial()],
        body: None,
        answers: vec![(204, empty("Forgotten"))],
        problems: vec![PATH, UNKNOWN, (409, "conflict", "the server has an open job"), STORAGE],
    }
}

fn probe() -> Operation {
    let probe = json!({
        "manufacturer": "Contoso", "model": "R1", "serial": "SN123", "power": "Off",
        "boot_override": "Disabled", "bmc_profile": "standard", "bmc_firmware": "1.20",
        "certificate_sha256": PIN,
        "slots": [
            {"path": "/redfish/v1/Managers/1/VirtualMedia/CD1", "media_types": ["CD", "DVD"], "inserted": false},
            {"path": "/redfish/v1/Managers/1/VirtualMedia/CD2", "media_types": ["CD", "DVD"], "inserted": false}
        ],
        "media_plan": "cd+cd", "problems": [],
        "fetch": {
            "result": "read", "detail": "1083392 bytes were read from https://192.0.2.1:8443/",
            "slot": "/redfish/v1/Managers/1/VirtualMedia/CD1", "bytes": 1_083_392
        }
    });
    Operation {
        method: "post",
        path: "/api/v1/servers/{serial}/probe",
        id: "probeServer",
        tag: "servers",
        summary: "Look at a server through its BMC",
        description: "Boots nothing. A small medium is inserted into an empty CD slot to see whether the BMC can read from this controller, and ejected again. What would stand in the way of a job is in `problems`. A BMC that does not answer is asked for some two minutes before the 502.",
        access: Access::Operator,
        parameters: vec![
            serial(),
            query_parameter(
                "insert",
                "`false` leaves the small medium out: then nothing is changed, not even for a moment",
                json!({"type": "boolean", "default": true}),
            ),
        ],
        body: None,
        answers: vec![(200, answer("What was seen", "Probe", probe))],
        problems: vec![
            PATH,
            QUERY,
            UNKNOWN,
            INTERNAL,
            CREDENTIALS,
            UNUSABLE,
            BMC,
            RESTING,
            STORAGE,
        ],
    }
}

fn power() -> Operation {
    act(
        "/api/v1/servers/{serial}/actions/power",
        "setPower",
        "Switch a server on or off, or start it anew",
        "Ends when the BMC shows it. `off` asks the running system first and takes the power away after half a minute. `restart`, `reset` and `cycle` use GracefulRestart, ForceRestart and PowerCycle where the BMC has them, and switch off and on where it does not. That the machine is on afterwards is read back; that it started anew is the BMC's word.",
        body("PowerAction", json!({"power": "on"})),
    )
}

fn boot() -> Operation {
    act(
        "/api/v1/servers/{serial}/actions/boot",
        "setBoot",
        "Say where a server's next boot is from",
        "Holds for one boot. Nothing is inserted and nothing is switched.",
        body("BootAction", json!({"boot": "cd"})),
    )
}

fn act(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    body: Option<Value>,
) -> Operation {
    let state = json!({"power": "On", "boot_override": "Disabled"});
    let busy = (409, "conflict", "the server has an open job");
    Operation {
        method: "post",
        path,
        id,
        tag: "servers",
        summary,
        description,
        access: Access::Operator,
        parameters: vec![serial()],
        body,
        answers: vec![(200, answer("What the BMC shows now", "ServerState", state))],
        problems: [
            BODY.as_slice(),
            &[PATH, UNKNOWN, busy, CREDENTIALS, UNUSABLE, INTERNAL, BMC, RESTING, STORAGE],
        ]
        .concat(),
    }
}

fn capture() -> Operation {
    let file = json!({
        "description": "Resources by path. `@shoal.capture` tells whether everything was read.",
        "content": {"application/json": {"schema": {
            "type": "object",
            "properties": {"@shoal.capture": {"type": "object"}},
            "required": ["@shoal.capture"],
        }}},
    });
    Operation {
        method: "get",
        path: "/api/v1/servers/{serial}/capture",
        id: "captureServer",
        tag: "servers",
        summary: "Record what a server's BMC shows",
        description: "Reads what the BMC links, slowly and in bounds, and changes nothing there; that takes up to five minutes. Numbers, addresses and names are replaced, each by the same everywhere. `shoal-bmc-sim replay` plays the file.",
        access: Access::Operator,
        parameters: vec![serial()],
        body: None,
        answers: vec![(200, file)],
        problems: vec![
            PATH,
            UNKNOWN,
            (409, "conflict", "the server has an open job"),
            CREDENTIALS,
            UNUSABLE,
            INTERNAL,
            BMC,
            RESTING,
            (503, "too-many-readers", "others are recorded now"),
            STORAGE,
        ],
    }
}

fn firmware() -> Operation {
    let list = json!({"firmware": [{
        "name": "BIOS", "version": "2.19.1", "path": "/redfish/v1/UpdateService/FirmwareInventory/BIOS"
    }]});
    Operation {
        method: "get",
        path: "/api/v1/servers/{serial}/firmware",
        id: "listFirmware",
        tag: "servers",
        summary: "List a server's firmware",
        description: "The inventory of the BMC's UpdateService, read now.",
        access: Access::Operator,
        parameters: vec![serial()],
        body: None,
        answers: vec![(200, answer("What is installed", "FirmwareList", list))],
        problems: vec![PATH, UNKNOWN, CREDENTIALS, UNUSABLE, INTERNAL, BMC, RESTING, STORAGE],
    }
}

fn update_firmware() -> Operation {
    let new = json!({"image": "firmware/bmc:2.1", "targets": ["BMC"], "version": "2.1"});
    let mut body = body("NewFirmwareUpdate", new).unwrap_or_default();
    body["content"]["application/octet-stream"] = json!({});
    let text = |name, what| query_parameter(name, what, json!({"type": "string"}));
    Operation {
        method: "post",
        path: "/api/v1/servers/{serial}/firmware",
        id: "updateFirmware",
        tag: "servers",
        summary: "Update a server's firmware through its BMC",
        description: "The image is an artifact of this registry, named in JSON, or the body itself; the query is for the latter. It is pushed to the BMC, or fetched by it from this controller where it takes no push. What comes of it is told by the update. No job is taken for this server meanwhile.",
        access: Access::Operator,
        parameters: vec![
            serial(),
            text("name", "the image's file name, as the BMC is told; some go by its ending"),
            text("target", "as `targets` in JSON, separated by commas"),
            text("version", "as `version` in JSON"),
        ],
        body: Some(body),
        answers: vec![(202, answer("Under way", "FirmwareUpdate", update_example("running")))],
        problems: [
            BODY.as_slice(),
            &[
                PATH,
                QUERY,
                UNKNOWN,
                (409, "conflict", "the server has an open job or another update"),
                (413, "image", "the image is larger than 4 GiB"),
                (422, "artifact-unknown", "the image is not in this controller's registry"),
                (422, "image", "the image is empty, or the artifact is not one file"),
                INTERNAL,
                (503, "busy", "too many updates are under way"),
                STORAGE,
            ],
        ]
        .concat(),
    }
}

fn firmware_update() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/servers/{serial}/firmware/update",
        id: "showFirmwareUpdate",
        tag: "servers",
        summary: "Show a server's last firmware update",
        description: "`unknown`: the BMC had the image when the controller lost sight of it, by its own end or the BMC's silence.",
        access: Access::Reader,
        parameters: vec![serial()],
        body: None,
        answers: vec![(200, answer("The update", "FirmwareUpdate", update_example("succeeded")))],
        problems: vec![
            PATH,
            UNKNOWN,
            (404, "update-unknown", "this server's firmware was not updated by this controller"),
            INTERNAL,
            STORAGE,
        ],
    }
}

fn update_example(state: &str) -> Value {
    let item = |version| {
        let path = "/redfish/v1/UpdateService/FirmwareInventory/BMC";
        json!([{"name": "BMC", "version": version, "path": path}])
    };
    let is_over = state != "running";
    let mut update = json!({
        "id": "018f4e6e-6c1e-7bb2-9a55-0d3f6d1f3a10", "server_serial": "SN123", "state": state,
        "step": if is_over { "firmware.version" } else { "firmware.discover" },
        "file_name": "bmc-2.1.bin", "bytes": 33_554_432, "sha256": PIN,
        "targets": ["BMC"], "version": "2.1", "before": [], "after": [],
        "started_at": "2026-01-01T12:00:00Z"
    });
    if is_over {
        update["way"] = "push".into();
        update["before"] = item("2.0");
        update["after"] = item("2.1");
        update["ended_at"] = "2026-01-01T12:07:30Z".into();
    }
    update
}

fn serial() -> Value {
    path_parameter(
        "serial",
        "SMBIOS serial number: 1 to 64 printable characters without spaces and `/`",
        "SN123",
    )
}

fn server_example() -> Value {
    json!({
        "serial": "SN123",
        "bmc": {"url": "https://192.0.2.77/", "username": "admin", "certificate_sha256": PIN},
        "created_at": "2026-01-01T12:00:00Z",
        "updated_at": "2026-01-01T12:00:00Z"
    })
}
