// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a machine in the maintenance OS says, with the token of its attempt.

use serde_json::{Value, json};

use super::jobs::recipe_example;
use super::operation::{
    Access, BODY, LARGE_BODY, Operation, Problem, STORAGE, answer, body, empty, path_parameter,
};

const OVER: Problem = (410, "attempt-over", "the attempt is over; the machine must stop");

pub fn operations() -> Vec<Operation> {
    vec![hello(), recipe(), permit(), progress(), log(), result()]
}

fn hello() -> Operation {
    Operation {
        method: "post",
        path: "/api/v1/node/attempts/{id}/hello",
        id: "sayHello",
        tag: "node",
        summary: "The maintenance OS runs and has found its task medium",
        description: "Said with the token of the task medium, which opens nothing else. It opens the session of this boot, whose token the later messages carry. Another boot before the permit replaces the session; one after the permit ends the attempt, as does a former session that still speaks, and a seventeenth boot.",
        access: Access::Attempt,
        parameters: vec![attempt()],
        body: body(
            "Hello",
            json!({
                "boot_id": BOOT, "dmi": dmi(), "version": env!("CARGO_PKG_VERSION"),
                "session_sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            }),
        ),
        answers: vec![(204, empty("Noted"))],
        problems: problems(&[
            (400, "session", "session_sha256 is not a SHA-256"),
            (409, "session-taken", "this boot has another session"),
            (
                426,
                "dispatcher-too-old",
                "the maintenance OS is older than sessions; its attempt ends",
            ),
            (503, "too-early", "there is no task medium yet"),
        ]),
    }
}

fn recipe() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/node/attempts/{id}/recipe",
        id: "getWholeRecipe",
        tag: "node",
        summary: "The recipe, with what its task medium does not say",
        description: "Where machines are spoken to over TLS, `user_data`, `meta_data`, `network_config`, `unattend_xml` and the values of `env` are not on the task medium, which BMCs copy: it has stand-ins, and says so in `withholds_secrets`. For the session that has the permit, while the attempt lasts: a hello alone proves nothing.",
        access: Access::Attempt,
        parameters: vec![attempt()],
        body: None,
        answers: vec![(200, answer("The recipe", "Recipe", recipe_example()))],
        problems: vec![(409, "permit-first", "the session has no permit yet"), OVER, STORAGE],
    }
}

fn permit() -> Operation {
    let request = json!({
        "boot_id": BOOT, "dmi": dmi(), "found": ["gpt", "ext4"],
        "disk": {"name": "nvme0n1", "serial": "S4EVNX0R", "size_bytes": 480_103_981_056_u64}
    });
    Operation {
        method: "post",
        path: "/api/v1/node/attempts/{id}/permit",
        id: "askPermit",
        tag: "node",
        summary: "Ask to write the disk",
        description: "At most one permit per attempt. The same request from the same boot is answered like the first time.",
        access: Access::Attempt,
        parameters: vec![attempt()],
        body: body("PermitRequest", request),
        answers: vec![(200, answer("Granted", "Permit", json!({"granted": true})))],
        problems: problems(&[
            (403, "wrong-machine", "the machine's names are not those of the job's server"),
            (
                422,
                "artifact-not-installable",
                "the job's artifact was judged since the job was created, and cannot be installed",
            ),
            (409, "permit-taken", "another boot has the permit, or it was given for another disk"),
            (
                503,
                "too-early",
                "the controller has not recorded this machine's reset yet; ask again",
            ),
        ]),
    }
}

fn progress() -> Operation {
    let progress = json!({
        "seq": 7, "step": "image-linux.service", "message": "unpacking",
        "bytes_done": 104_857_600, "bytes_total": 419_430_400, "bytes_per_sec": 52_428_800
    });
    Operation {
        method: "post",
        path: "/api/v1/node/attempts/{id}/progress",
        id: "tellProgress",
        tag: "node",
        summary: "Tell how far a step is",
        description: "Only the newest `seq` matters.",
        access: Access::Attempt,
        parameters: vec![attempt()],
        body: body("Progress", progress),
        answers: vec![(204, empty("Noted"))],
        problems: problems(&[]),
    }
}

fn log() -> Operation {
    Operation {
        method: "post",
        path: "/api/v1/node/attempts/{id}/log",
        id: "tellLog",
        tag: "node",
        summary: "Pass on lines of a step's journal",
        description: "At most 200 lines of 4096 bytes each are kept of a message. A `seq` that came before adds nothing.",
        access: Access::Attempt,
        parameters: vec![attempt()],
        body: body(
            "Log",
            json!({"seq": 3, "step": "partition.service", "lines": ["writing the partition table"]}),
        ),
        answers: vec![(204, empty("Noted"))],
        problems: problems(&[]),
    }
}

fn result() -> Operation {
    Operation {
        method: "post",
        path: "/api/v1/node/attempts/{id}/result",
        id: "tellResult",
        tag: "node",
        summary: "Tell how it ended",
        description: "Repeated until it is answered; the same result is answered the same.",
        access: Access::Attempt,
        parameters: vec![attempt()],
        body: body(
            "AttemptResult",
            json!({"status": "failed", "failed_step": "partition.service", "reason": "no disk matches"}),
        ),
        answers: vec![(204, empty("Noted"))],
        problems: problems(&[(
            409,
            "wrong-state",
            "a success before the permit, or anything before the machine was reset",
        )]),
    }
}

/// What every message may be answered, and `more`.
fn problems(more: &[Problem]) -> Vec<Problem> {
    [BODY.as_slice(), &LARGE_BODY, more, &[OVER, STORAGE]].concat()
}

const BOOT: &str = "6f2d1b0e-0000-4000-8000-000000000003";

fn dmi() -> Value {
    json!({
        "serial": "SN123", "uuid": "4c4c4544-0000-1000-8000-000000000004",
        "manufacturer": "Contoso", "product": "R1"
    })
}

fn attempt() -> Value {
    path_parameter("id", "The attempt's id", "0198b9c0-0000-7000-8000-000000000002")
}
