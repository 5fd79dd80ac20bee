// SPDX-License-Identifier: AGPL-3.0-or-later
//! The whole document: what holds for every operation, and the operations under their paths.

use serde_json::{Map, Value, json};

use super::operation::Operation;
use super::{access, artifacts, jobs, node, other, schemas, servers};

const DESCRIPTION: &str = "\
Shoal provisions bare metal over Redfish, by virtual media only. A client makes servers known, creates a \
job from a recipe for one of them, and follows the job's events to a named end.

**Errors.** Every error answer is `application/problem+json` (RFC 9457). `type` is a URN that never \
changes its meaning; the URNs that an operation may answer are listed with it. A path that is not here \
answers 404 `urn:shoal:problem:no-such-path`, another method of a path 405 `urn:shoal:problem:method`. \
Every GET answers HEAD too. \
Answers may gain members and problems new types in later versions: ignore what you do not know.

**Strictness.** Bodies with unknown members and unknown query parameters are refused. A body has at most \
6 MiB; below `/api/v1/artifacts/` there is no limit.

**Roles.** A token has one: `reader` looks, `operator` runs jobs and works BMCs, `admin` does everything, and \
`publisher` uses the registry only. The `security` of an operation names the least one. A request without a \
good token gets 401, one whose role is not enough 403.

**Durability.** An answer comes after what it tells is on disk.

**The registry** for OS artifacts under `/v2/` is not described here: it is the OCI distribution \
specification 1.1 (https://github.com/opencontainers/distribution-spec), with a token as the password \
of Basic: an admin's, a publisher's below its prefixes, an operator's to pull, or one that a machine gets to pull the artifact of \
its job. Its errors have that specification's own form.";

/// The document, built from the types of this crate.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.to_json();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Shoal",
            "summary": "Bare-metal provisioning over Redfish",
            "description": DESCRIPTION,
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"}
        },
        "servers": [{"url": "/", "description": "The controller that answers this document"}],
        "tags": [
            {"name": "jobs", "description": "One recipe carried out once on one server"},
            {"name": "servers", "description": "Which machine is reached at which BMC"},
            {"name": "artifacts", "description": "What the controller's registry holds, its upkeep, and who else may push"},
            {"name": "access", "description": "Who may do what, and who did what"},
            {"name": "node", "description": "What a machine in the maintenance OS says; nothing for people"},
            {"name": "media", "description": "What BMCs and firmware read"},
            {"name": "about", "description": "The controller itself"}
        ],
        "paths": paths,
        "components": {
            "schemas": schemas::schemas(),
            "headers": {
                "RetryAfter": {
                    "description": "Seconds after which to ask again",
                    "schema": {"type": "integer", "minimum": 0},
                    "example": 2
                }
            },
            "securitySchemes": security_schemes()
        }
    })
}

fn operations() -> Vec<Operation> {
    [
        jobs::operations(),
        servers::operations(),
        artifacts::operations(),
        access::operations(),
        node::operations(),
        other::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn security_schemes() -> Value {
    json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of `/api/v1/tokens`, or the one in the file `admin-token` of the controller's data directory, which is an admin's. Each operation names the least role: `reader` is included in `operator`, and that in `admin`."
        },
        "tokenBasic": {
            "type": "http",
            "scheme": "basic",
            "description": "The same token as the password, for clients that know nothing else; the user's name does not matter."
        },
        "attempt": {
            "type": "http",
            "scheme": "bearer",
            "description": "The routes of one attempt of one job. `hello` takes the token of the attempt, from `attempt.json` on its task medium, and no other route does. All others take the token of the session that this hello opened: its SHA-256 was `session_sha256`. Either is good for its attempt only, and gets 410 once that is over."
        },
        "webhookSecret": {
            "type": "apiKey",
            "in": "header",
            "name": "X-Webhook-Secret",
            "description": "What the controller was given with `--webhook-secret-file`; without that option nothing fits."
        }
    })
}
