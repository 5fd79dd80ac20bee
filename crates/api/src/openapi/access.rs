// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tokens, and the audit log.

use serde_json::{Value, json};

use super::operation::{
    Access, BODY, INTERNAL, Operation, PATH, QUERY, STORAGE, answer, body, empty, path_parameter,
    query_parameter,
};

const ID: &str = "3f9c02b7a1de";

pub fn operations() -> Vec<Operation> {
    vec![list(), create(), revoke(), audit()]
}

fn list() -> Operation {
    Operation {
        method: "get",
        path: "/api/v1/tokens",
        id: "listAccessTokens",
        tag: "access",
        summary: "List tokens, newest first",
        description: "Without their secrets; also those that are revoked or whose time is over. The token in the controller's file `admin-token` is none of them.",
        access: Access::Admin,
        parameters: Vec::new(),
        body: None,
        answers: vec![(
            200,
            answer("All tokens", "AccessTokenList", json!({"tokens": [token_example()]})),
        )],
        problems: vec![STORAGE],
    }
}

fn create() -> Operation {
    let mut created = token_example();
    created["secret"] = format!("shp_operator_{ID}_SECRET").into();
    Operation {
        method: "post",
        path: "/api/v1/tokens",
        id: "createAccessToken",
        tag: "access",
        summary: "Make a token with a role",
        description: "A publisher's token is good at `/v2/` only, below its prefixes.",
        access: Access::Admin,
        parameters: Vec::new(),
        body: body(
            "NewAccessToken",
            json!({"role": "operator", "name": "deploy-bot", "days": 90}),
        ),
        answers: vec![(201, answer("The token, its secret this once", "CreatedAccessToken", created))],
        problems: [
            BODY.as_slice(),
            &[
                (422, "token", "the name is not usable, the days are too few or too many, a prefix is none, a publisher has no prefix, or another role has one"),
                INTERNAL,
                STORAGE,
            ],
        ]
        .concat(),
    }
}

fn revoke() -> Operation {
    Operation {
        method: "delete",
        path: "/api/v1/tokens/{id}",
        id: "revokeAccessToken",
        tag: "access",
        summary: "Revoke a token",
        description: "It is dead with the next request. A revoked one stays in the list.",
        access: Access::Admin,
        parameters: vec![path_parameter("id", "The token's id", ID)],
        body: None,
        answers: vec![(204, empty("Revoked, now or before"))],
        problems: vec![PATH, (404, "token-unknown", "there is no such token"), STORAGE],
    }
}

fn audit() -> Operation {
    let entry = json!({
        "seq": 1, "at": "2026-01-01T12:00:00Z", "who": format!("token {ID} deploy-bot"),
        "role": "operator", "method": "POST", "route": "/api/v1/jobs", "target": "/api/v1/jobs",
        "from": "192.0.2.9", "status": 202,
        "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    });
    Operation {
        method: "get",
        path: "/api/v1/audit",
        id: "listAudit",
        tag: "access",
        summary: "Read the audit log, oldest first",
        description: "Every request that may change something, of whoever is known: people, machines, senders of the webhook; refused ones too. What a machine tells of its progress and its log are events of its job instead. `hash` is SHA-256 over the JSON array of the hash before (empty before the first), `seq`, milliseconds since 1970, `who`, `role`, `method`, `route`, `target`, `from` and `status`, without white space: an entry that was changed, taken out or put in breaks the chain.",
        access: Access::Admin,
        parameters: vec![
            query_parameter(
                "after",
                "Only entries whose `seq` is larger",
                json!({"type": "integer", "minimum": 0, "default": 0}),
            ),
            query_parameter(
                "limit",
                "Entries in one page; what is outside 1 to 1000 is taken as the nearer end",
                json!({"type": "integer", "minimum": 0, "default": 100}),
            ),
        ],
        body: None,
        answers: vec![(200, answer("A page", "AuditPage", json!({"entries": [entry]})))],
        problems: vec![QUERY, STORAGE],
    }
}

fn token_example() -> Value {
    json!({
        "id": ID, "role": "operator", "name": "deploy-bot",
        "created_at": "2026-01-01T12:00:00Z", "expires_at": "2026-04-01T12:00:00Z"
    })
}
