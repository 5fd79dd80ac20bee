// SPDX-License-Identifier: AGPL-3.0-or-later
//! Jobs, and the webhook that tells the end of one.

use serde_json::{Value, json};

use super::operation::{
    Access, BODY, INTERNAL, LARGE_BODY, Operation, PATH, Problem, QUERY, STORAGE, answer, body,
    empty, header_parameter, path_parameter, query_parameter, schema,
};

const JOB_ID: &str = "0198b9c0-0000-7000-8000-000000000001";
const UNKNOWN: Problem = (404, "job-unknown", "there is no such job");

pub fn operations() -> Vec<Operation> {
    vec![create(), list(), show(), events(), cancel(), evidence(), webhook()]
}

fn create() -> Operation {
    Operation {
        method: "post",
        path: "/api/v1/jobs",
        id: "createJob",
        tag: "jobs",
        summary: "Create a job",
        description: "Stores the job and answers; the work begins by itself. A server has at most one job that is not complete.",
        access: Access::Operator,
        parameters: vec![
            header_parameter(
                "Idempotency-Key",
                "A repeated request with the same key and the same body, byte for byte, answers the job of the first one and creates none.",
                json!({"type": "string", "minLength": 1, "maxLength": 255}),
            ),
            query_parameter(
                "mode",
                "`plan`: check everything that a job would meet, and create none. Asks the BMC, and inserts a small medium there to see whether it can be read; that takes up to some minutes.",
                json!({"const": "plan"}),
            ),
        ],
        body: body("NewJob", json!({"server_serial": "SN123", "recipe": recipe_example()})),
        answers: vec![
            (200, answer("With `mode=plan`: what a job would meet", "Plan", plan_example())),
            (202, accepted("The job, new or of the first request with this key")),
        ],
        problems: [
            BODY.as_slice(),
            &LARGE_BODY,
            &[
                QUERY,
                (400, "recipe-invalid", "the recipe is not valid; `errors` has every wrong place"),
                (400, "idempotency-key", "the key is empty, too long or not ASCII"),
                (404, "server-unknown", "no server has this serial"),
                (
                    409,
                    "conflict",
                    "the server has an open job, or the key was used with another body",
                ),
                (
                    422,
                    "target-unsupported",
                    "the recipe is valid, but this version cannot carry out its target",
                ),
                (
                    422,
                    "artifact-unknown",
                    "`oci_url` names an artifact that is not in the controller's registry",
                ),
                (
                    422,
                    "artifact-not-installable",
                    "`oci_url` names an artifact of the controller's registry that the target cannot install",
                ),
                INTERNAL,
                (503, "no-maintenance-iso", "the controller was started without a maintenance OS"),
                (507, "disk-full", "the controller's disk is full; jobs that run go on"),
                STORAGE,
            ],
        ]
        .concat(),
    }
}

fn plan_example() -> Value {
    json!({
        "server_serial": "SN123", "task_target": "install-linux.target", "media_plan": "cd+cd",
        "checks": [
            {"name": "bmc", "result": "pass", "detail": "Contoso R1, serial SN123"},
            {"name": "fetch", "result": "pass", "detail": "1083392 bytes were read from https://192.0.2.1:8443/, 20480 KiB/s"}
        ],
        "is_ready": true, "expected_seconds": 412
    })
}

fn list() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/jobs",
        id: "listJobs",
        tag: "jobs",
        summary: "List jobs, newest first",
        description: "",
        access: Access::Reader,
        parameters: vec![
            query_parameter("status", "Only jobs with this status", schema("JobStatus")),
            query_parameter(
                "server",
                "Only jobs of the server with this serial",
                json!({"type": "string"}),
            ),
            query_parameter(
                "cursor",
                "`next_cursor` of the page before",
                json!({"type": "string"}),
            ),
            query_parameter(
                "limit",
                "Jobs in one page; what is outside 1 to 500 is taken as the nearer end",
                json!({"type": "integer", "minimum": 0, "default": 100}),
            ),
        ],
        body: None,
        answers: vec![(200, answer("A page", "JobList", json!({"jobs": [job_example()]})))],
        problems: vec![QUERY, STORAGE],
    }
}

fn show() -> Operation {
    let mut shown = job_example();
    shown["recipe"] = recipe_example();
    shown["recipe"]["user_data"] = json!({"bytes": 30});
    Operation {
        method: "get",
        path: "/api/v1/jobs/{id}",
        id: "showJob",
        tag: "jobs",
        summary: "Show a job with its recipe",
        description: "",
        access: Access::Reader,
        parameters: vec![job_id()],
        body: None,
        answers: vec![(200, answer("The job", "Job", shown))],
        problems: vec![PATH, UNKNOWN, STORAGE],
    }
}

fn events() -> Operation {
    let event = json!({
        "seq": 1, "at": "2026-01-01T12:00:00Z", "kind": "queued",
        "message": "install-linux.target for server SN123", "status": "queued"
    });
    let stream = format!("id: 1\nevent: queued\ndata: {event}\n\n");
    let after = json!({"type": "integer", "minimum": 0, "default": 0});
    Operation {
        method: "get",
        path: "/api/v1/jobs/{id}/events",
        id: "listJobEvents",
        tag: "jobs",
        summary: "Read or follow a job's events",
        description: "As JSON: a page of at most 1000 events and about 1 MiB, oldest first; `next` tells whether there are more. With `Accept: text/event-stream`: the same events as they come, until the job is complete. The stream's `id` is `seq`, its `event` is `kind`, its `data` is one JobEvent.",
        access: Access::Reader,
        parameters: vec![
            job_id(),
            query_parameter("after", "Only events whose `seq` is larger", after),
            header_parameter(
                "Last-Event-ID",
                "As `after`, and before it; a browser's EventSource sends it when it connects again.",
                json!({"type": "string"}),
            ),
        ],
        body: None,
        answers: vec![(
            200,
            json!({
                "description": "The events",
                "content": {
                    "application/json": {
                        "schema": schema("JobEvents"),
                        "example": {"events": [event]}
                    },
                    "text/event-stream": {"schema": {"type": "string"}, "example": stream}
                }
            }),
        )],
        problems: vec![PATH, QUERY, UNKNOWN, STORAGE],
    }
}

fn cancel() -> Operation {
    let mut cancelled = job_example();
    cancelled["stage"] = "powering_off".into();
    cancelled["status"] = "failed".into();
    cancelled["outcome"] = "failed".into();
    cancelled["failed_step"] = "cancelled".into();
    cancelled["reason"] = "cancelled by a user".into();
    Operation {
        method: "post",
        path: "/api/v1/jobs/{id}/cancel",
        id: "cancelJob",
        tag: "jobs",
        summary: "Cancel a job",
        description: "The job fails with the step `cancelled`, also while a disk is being written. What was touched is put back before it is complete.",
        access: Access::Operator,
        parameters: vec![job_id()],
        body: None,
        answers: vec![(202, answer("The job as it is now", "Job", cancelled))],
        problems: vec![
            PATH,
            UNKNOWN,
            (409, "wrong-state", "the job has already succeeded or failed"),
            STORAGE,
        ],
    }
}

fn evidence() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/jobs/{id}/evidence",
        id: "getJobEvidence",
        tag: "jobs",
        summary: "Everything that is known of a job, in one tar archive",
        description: "The job, its story with the machine's journal, who read which part of the media and when, and what was said to the BMC and by it. Passwords, tokens and media URLs are left out. Kept for failed jobs; of a job that runs, what there is so far.",
        access: Access::Reader,
        parameters: vec![job_id()],
        body: None,
        answers: vec![(
            200,
            json!({"description": "The archive", "content": {"application/x-tar": {}}}),
        )],
        problems: vec![PATH, UNKNOWN, INTERNAL, STORAGE],
    }
}

fn webhook() -> Operation {
    Operation {
        method: "post",
        path: "/api/v1/status-webhook/{serial}",
        id: "reportStatus",
        tag: "jobs",
        summary: "Tell how the open job of a server ended",
        description: "For senders that are not Shoal's dispatcher.",
        access: Access::Sender,
        parameters: vec![path_parameter("serial", "Serial number of the server", "SN123")],
        body: body(
            "StatusWebhook",
            json!({"status": "failed", "failed_step": "image-linux.service", "delivery_id": "7f3a"}),
        ),
        answers: vec![(200, empty("Noted, now or by an earlier delivery"))],
        problems: [
            BODY.as_slice(),
            &[
                PATH,
                (400, "delivery-id", "`delivery_id` has not 1 to 255 bytes"),
                (404, "job-unknown", "the server has no open job"),
                (409, "wrong-state", "a success before the disk was permitted, a failure before the machine was reset, or the job has ended otherwise"),
                STORAGE,
            ],
        ]
        .concat(),
    }
}

fn job_id() -> Value {
    path_parameter("id", "The job's id", JOB_ID)
}

fn accepted(description: &str) -> Value {
    let mut accepted = answer(description, "Job", job_example());
    accepted["headers"] = json!({
        "Location": {
            "description": "The job's path",
            "schema": {"type": "string"},
            "example": format!("/api/v1/jobs/{JOB_ID}")
        }
    });
    accepted
}

fn job_example() -> Value {
    json!({
        "id": JOB_ID,
        "server_serial": "SN123",
        "status": "queued",
        "stage": "queued",
        "task_target": "install-linux.target",
        "created_at": "2026-01-01T12:00:00Z",
        "updated_at": "2026-01-01T12:00:00Z"
    })
}

pub fn recipe_example() -> Value {
    json!({
        "task_target": "install-linux.target",
        "target_disk": {"serial": "S4EVNX0R", "size": ">=400G"},
        "wipe": {"expect": ["gpt", "vfat", "ext4"]},
        "oci_url": "controller/os-images/debian:13",
        "partition_layout": [
            {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
            {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "CIDATA"},
            {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"}
        ],
        "user_data": "#cloud-config\nhostname: web-1\n"
    })
}
