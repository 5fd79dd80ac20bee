// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the registry holds, and its upkeep.

use serde_json::json;

use super::operation::{
    Access, INTERNAL, Operation, PATH, QUERY, STORAGE, answer, empty, path_parameter,
    query_parameter,
};

const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const NAME: &str = "os-images/debian:13";
const UPLOAD: &str = "0c1f5a3e-8f6b-4c52-9a3e-2d0c2f1b7a10";

pub fn operations() -> Vec<Operation> {
    vec![list(), uploads(), cancel_upload(), collect(), scrub(), export(), import()]
}

fn list() -> Operation {
    let example = json!({"artifacts": [{
        "repository": "os-images/debian", "tag": "13", "digest": DIGEST,
        "verdict": "installable", "reason": null
    }]});
    Operation {
        method: "get",
        path: "/api/v1/artifacts",
        id: "listArtifacts",
        tag: "artifacts",
        summary: "List what the controller's registry holds",
        description: "",
        access: Access::Reader,
        parameters: Vec::new(),
        body: None,
        answers: vec![(200, answer("Every tag", "ArtifactList", example))],
        problems: vec![INTERNAL],
    }
}

fn uploads() -> Operation {
    let example = json!({"uploads": [{
        "id": UPLOAD, "repository": "os-images/debian",
        "who": "token 3f8c2a9d71b04e65 ci", "begun_at": "2026-01-01T12:00:00Z",
        "written_at": "2026-01-01T12:03:00Z", "bytes": 67_108_864, "is_receiving": false
    }]});
    Operation {
        method: "get",
        path: "/api/v1/artifacts/uploads",
        id: "listUploads",
        tag: "artifacts",
        summary: "List uploads that are open, the oldest first",
        description: "Each takes room on the disk and a place among its caller's uploads, until it is finished or cancelled, or a collection finds that nobody continued it for a day.",
        access: Access::Admin,
        parameters: Vec::new(),
        body: None,
        answers: vec![(200, answer("Every open upload", "UploadList", example))],
        problems: vec![INTERNAL],
    }
}

fn cancel_upload() -> Operation {
    Operation {
        method: "delete",
        path: "/api/v1/artifacts/uploads/{id}",
        id: "cancelUpload",
        tag: "artifacts",
        summary: "Cancel an open upload",
        description: "Its room is free at once. Where a request sends to it at this moment it ends with the next bytes, or with that request.",
        access: Access::Admin,
        parameters: vec![path_parameter("id", "The upload's id", UPLOAD)],
        body: None,
        answers: vec![(204, empty("Cancelled"))],
        problems: vec![
            PATH,
            (404, "upload-unknown", "there is no such upload; it may be finished"),
            INTERNAL,
        ],
    }
}

fn collect() -> Operation {
    let example = json!({
        "uploads_removed": 1, "tags_removed": 0, "manifests_removed": 1, "blobs_removed": 2,
        "contents_removed": 2, "bytes_freed": 419_430_400, "manifests_marked": 0,
        "blobs_marked": 1
    });
    Operation {
        method: "post",
        path: "/api/v1/artifacts/gc",
        id: "collectArtifacts",
        tag: "artifacts",
        summary: "Remove what nobody needs",
        description: "Happens by itself once a day. What is not needed is marked, and removed by a later collection; what an open job needs stays, with a tag or without.",
        access: Access::Admin,
        parameters: vec![query_parameter(
            "uploads",
            "Whether every open upload is removed that no request sends to at this moment; without it only those that nobody continued for a day",
            json!({"type": "boolean", "default": false}),
        )],
        body: None,
        answers: vec![(200, answer("What went", "Collected", example))],
        problems: vec![
            (409, "conflict", "another collection, an export or an import is under way"),
            QUERY,
            INTERNAL,
            STORAGE,
        ],
    }
}

fn scrub() -> Operation {
    let example = json!({
        "contents_checked": 42, "bytes_checked": 8_589_934_592_u64, "rotten": [DIGEST],
        "missing": []
    });
    Operation {
        method: "post",
        path: "/api/v1/artifacts/scrub",
        id: "scrubArtifacts",
        tag: "artifacts",
        summary: "Read everything again, and set aside what has rotted",
        description: "Happens by itself once a day, slowly. Here it reads as fast as the disk can, and answers when it is done.",
        access: Access::Admin,
        parameters: Vec::new(),
        body: None,
        answers: vec![(200, answer("What was found", "Scrubbed", example))],
        problems: vec![INTERNAL],
    }
}

fn export() -> Operation {
    let names = json!({"type": "array", "items": {"type": "string"}});
    Operation {
        method: "get",
        path: "/api/v1/artifacts/export",
        id: "exportArtifacts",
        tag: "artifacts",
        summary: "Artifacts in one tar file, for a site without a network",
        description: "An OCI image layout with signatures. A body that breaks off is no bundle: something failed on the way.",
        access: Access::Admin,
        parameters: vec![
            query_parameter(
                "name",
                "`REPOSITORY:TAG` or `REPOSITORY@DIGEST`, once for each artifact; without any, every tag",
                names,
            ),
            query_parameter(
                "maintenance-iso",
                "Given, with any value or none: the controller's maintenance OS goes along",
                json!({"type": "string"}),
            ),
        ],
        body: None,
        answers: vec![(
            200,
            json!({"description": "The bundle", "content": {"application/x-tar": {}}}),
        )],
        problems: vec![
            (400, "artifact-name", "a `name` is no artifact's name, or another parameter came"),
            (404, "artifact-unknown", "an artifact is not in the registry"),
            (404, "no-maintenance-iso", "the controller was started without a maintenance OS"),
            INTERNAL,
        ],
    }
}

fn import() -> Operation {
    let example = json!({
        "tags": [NAME], "manifests": 1, "blobs": 2, "bytes": 419_430_400,
        "maintenance_iso": "/var/lib/shoal/maintenance-imported.iso"
    });
    Operation {
        method: "post",
        path: "/api/v1/artifacts/import",
        id: "importArtifacts",
        tag: "artifacts",
        summary: "Take a bundle in",
        description: "Every byte is checked; all of the bundle is taken in, or nothing. It may be of any length.",
        access: Access::Admin,
        parameters: Vec::new(),
        body: Some(json!({"required": true, "content": {"application/x-tar": {}}})),
        answers: vec![(200, answer("What it brought", "Imported", example))],
        problems: vec![
            (409, "conflict", "a collection is under way"),
            (
                422,
                "bundle",
                "it is no bundle, is not whole, or would move a tag that never moves; `detail` says which",
            ),
            (500, "internal", "the body broke off or is no tar file, or the controller failed"),
            (507, "disk-full", "the disk has no room for it"),
        ],
    }
}
