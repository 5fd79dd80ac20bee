// SPDX-License-Identifier: AGPL-3.0-or-later
//! Who may use the API, and who did: `/api/v1/tokens` and `/api/v1/audit`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest life of a token.
pub const TOKEN_DAYS_MAX: i64 = 3650;
/// Life of a token whose maker says nothing.
pub const TOKEN_DAYS: i64 = 90;

/// What a token lets its holder do. Each of `reader`, `operator` and `admin` includes those before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Pushes to the registry and pulls from it, below the token's prefixes. Nothing of the API.
    Publisher,
    /// Looks at jobs, servers and artifacts.
    Reader,
    /// Runs jobs, cancels them, and works a server's BMC: power, boot, firmware, probes.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Publisher, Role::Reader, Role::Operator, Role::Admin];

    /// As JSON and tokens write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Publisher => "publisher",
            Role::Reader => "reader",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// Whether this role may do what `least` may.
    pub fn includes(self, least: Role) -> bool {
        match self {
            Role::Publisher => least == Role::Publisher,
            Role::Reader | Role::Operator | Role::Admin => {
                least != Role::Publisher && self >= least
            }
        }
    }
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccessToken {
    pub role: Role,
    /// Whose it is, in lists and in the audit log: 1 to 64 printable characters without spaces.
    pub name: String,
    /// After so many days it is dead.
    #[serde(default = "token_days")]
    #[schemars(range(min = 1, max = TOKEN_DAYS_MAX))]
    pub days: i64,
    /// Of a publisher: prefixes of the repositories that it may read, such as `os-images/`; `*` for all.
    #[serde(default)]
    pub pull: Vec<String>,
    /// Of a publisher: prefixes of the repositories that it may read and write.
    #[serde(default)]
    pub push: Vec<String>,
}

fn token_days() -> i64 {
    TOKEN_DAYS
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessToken {
    /// The part of the token's text that is no secret.
    pub id: String,
    pub role: Role,
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub push: Vec<String>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// To the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// A token that was made just now.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreatedAccessToken {
    #[serde(flatten)]
    pub token: AccessToken,
    /// What its holder sends: `Authorization: Bearer SECRET`. It is told this once.
    pub secret: String,
}

/// Every token, also those that are over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessTokenList {
    pub tokens: Vec<AccessToken>,
}

/// One request that changed something, or was to, by somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// 1, 2, 3 … without a gap; old ones may have been removed (`anchor`).
    pub seq: u64,
    pub at: Timestamp,
    /// `admin-token` for the token in the controller's file, `token ID NAME`, `attempt ID`, `webhook`,
    /// `controller` for the removal of old entries, `many` for refusals of more callers than are counted
    /// apart, or `anyone` where the controller asks nobody who they are.
    pub who: String,
    /// The role, `node` or `webhook`.
    pub role: String,
    pub method: String,
    /// As the API's document writes it.
    pub route: String,
    /// The path that was asked for, without its query.
    pub target: String,
    /// The address that the request came from, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The status of the answer; 0: the controller ended before there was one, and what was asked for is done
    /// or not.
    pub status: u16,
    /// Of refused requests, and of messages of machines: so many, of one minute and of the same caller, address,
    /// route and status as this entry, have none of their own. The target is the last one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    /// SHA-256 over this entry and the hash of the one before, in hex.
    pub hash: String,
}

impl AuditEntry {
    /// What `hash` is taken of. Never changes: logs of every version are verified with it.
    pub fn hashed_text(&self, hash_before: &str) -> String {
        let mut hashed = serde_json::json!([
            hash_before,
            self.seq,
            self.at.as_millisecond(),
            self.who,
            self.role,
            self.method,
            self.route,
            self.target,
            self.from,
            self.status,
        ]);
        // Entries without it are hashed as before there was such a thing.
        if let (Some(repeats), Some(fields)) = (self.repeats, hashed.as_array_mut()) {
            fields.push(repeats.into());
        }
        hashed.to_string()
    }

    /// What this entry says that was removed from the log's beginning, if it is about that.
    pub fn removed(&self) -> Option<AuditAnchor> {
        let is_removal = self.who == AUDIT_REMOVER && self.route == AUDIT_ROUTE;
        let (seq, hash) = self.target.strip_prefix("1-")?.split_once(':')?;
        let anchor = AuditAnchor { seq: seq.parse().ok()?, hash: hash.to_owned() };
        is_removal.then_some(anchor)
    }
}

/// Who removes old entries: no caller has this name.
pub const AUDIT_REMOVER: &str = "controller";
/// The route of the entry that tells of it.
pub const AUDIT_ROUTE: &str = "/api/v1/audit";

/// The last entry that was removed from the beginning of the audit log for its age or for room. The log has an
/// entry that says the same: by `AUDIT_REMOVER`, with the target `1-SEQ:HASH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditAnchor {
    pub seq: u64,
    /// What the first entry that is left is hashed with.
    pub hash: String,
}

impl AuditAnchor {
    /// The target of the entry that tells of the removal.
    pub fn to_target(&self) -> String {
        format!("1-{}:{}", self.seq, self.hash)
    }
}

/// The hash before the first entry.
pub const AUDIT_BEGINNING: &str = "";

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditPage {
    /// Oldest first.
    pub entries: Vec<AuditEntry>,
    /// `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// On a page that begins with the log's first entry, if earlier ones were removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<AuditAnchor>,
}
