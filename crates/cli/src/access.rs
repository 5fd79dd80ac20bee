// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal token` and `shoal audit`: access tokens, and the audit log with its verification.

use anyhow::{Context, anyhow};
use api::access::{AUDIT_BEGINNING, AuditAnchor, AuditEntry, AuditPage, NewAccessToken, Role};
use oci::Digest;
use serde_json::Value;

use crate::args::{Audit, AuditHead, Output, TokenCommand, TokenRole};
use crate::client::{Client, encoded};
use crate::failure::Failure;
use crate::output::{json, say, show, text};

const TOKEN_HEAD: [&str; 6] = ["ID", "ROLE", "NAME", "EXPIRES", "LAST USED", "STATE"];
const AUDIT_HEAD: [&str; 7] = ["SEQ", "AT", "WHO", "FROM", "METHOD", "TARGET", "STATUS"];
/// The controller's maximum for one page.
const PAGE: u64 = 1000;

pub fn token(client: &Client, format: Output, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { role, name, days, pull, push } => {
            let role = match role {
                TokenRole::Admin => Role::Admin,
                TokenRole::Operator => Role::Operator,
                TokenRole::Reader => Role::Reader,
                TokenRole::Publisher => Role::Publisher,
            };
            let new = NewAccessToken { role, name, days, pull, push };
            let created = client.post("/api/v1/tokens", &[], &new)?;
            show(format, &created, &["TOKEN (shown once)"], |created| {
                vec![vec![text(created, "/secret")]]
            });
        }
        TokenCommand::List => {
            let list = client.get("/api/v1/tokens")?;
            show(format, &list, &TOKEN_HEAD, |list| {
                list["tokens"].as_array().into_iter().flatten().map(token_row).collect()
            });
        }
        TokenCommand::Revoke { id } => {
            let id = whole_id(client, id)?;
            client.delete(&format!("/api/v1/tokens/{}", encoded(&id)))?;
        }
    }
    Ok(())
}

/// Completes the beginning of a token's id. If no id begins so, it is returned unchanged and the controller refuses it.
fn whole_id(client: &Client, id: String) -> Result<String, Failure> {
    let list = client.get("/api/v1/tokens")?;
    let ids = list["tokens"].as_array().into_iter().flatten().map(|token| text(token, "/id"));
    let found: Vec<String> = ids.filter(|whole| whole.starts_with(&id)).collect();
    match &found[..] {
        _ if id.is_empty() || found.contains(&id) => Ok(id),
        [] => Ok(id),
        [one] => Ok(one.clone()),
        several => {
            let ids = several.join(", ");
            Err(anyhow!("{id} is the beginning of several ids: {ids}; write more of it").into())
        }
    }
}

fn token_row(token: &Value) -> Vec<String> {
    let state = if token["revoked_at"].is_string() { "revoked" } else { "" };
    let mut row: Vec<String> = ["/id", "/role", "/name", "/expires_at", "/last_used_at"]
        .iter()
        .map(|pointer| text(token, pointer))
        .collect();
    row.push(state.into());
    row
}

pub fn audit(client: &Client, format: Output, command: Audit) -> Result<(), Failure> {
    match command {
        Audit::List { after, limit } => {
            let page = client.get(&format!("/api/v1/audit?after={after}&limit={limit}"))?;
            show(format, &page, &AUDIT_HEAD, |page| {
                page["entries"].as_array().into_iter().flatten().map(audit_row).collect()
            });
            Ok(())
        }
        Audit::Verify { expect } => verify(client, format, &expect),
    }
}

fn audit_row(entry: &Value) -> Vec<String> {
    let mut row: Vec<String> =
        ["/seq", "/at", "/who", "/from", "/method", "/target", "/status", "/repeats"]
            .iter()
            .map(|pointer| text(entry, pointer))
            .collect();
    if let (Some(repeats), Some(status)) =
        (row.pop().filter(|text| !text.is_empty()), row.last_mut())
    {
        *status = format!("{status}, {repeats} times");
    }
    row
}

/// Reads the whole log and computes every hash again locally, so that the controller need not be trusted.
fn verify(client: &Client, format: Output, expected: &[AuditHead]) -> Result<(), Failure> {
    let mut chain = Chain::default();
    let mut after = 0;
    loop {
        let page = client.get(&format!("/api/v1/audit?after={after}&limit={PAGE}"))?;
        let page: AuditPage = serde_json::from_value(page).context("read the audit log")?;
        if let Some(anchor) = page.anchor.filter(|_| after == 0) {
            chain = Chain::from(anchor);
        }
        for entry in &page.entries {
            chain
                .follow(entry)
                .map_err(|problem| anyhow!("the audit log is not whole: {problem}"))?;
            if let Some(wrong) = expected
                .iter()
                .find(|expected| expected.seq == entry.seq && expected.hash != entry.hash)
            {
                let problem = format!("entry {} has another hash than you noted", wrong.seq);
                return Err(anyhow!("the audit log was rewritten: {problem}").into());
            }
        }
        match page.next {
            Some(next) if next > after => after = next,
            _ => break,
        }
    }
    if let Some(lost) = expected.iter().find(|expected| expected.seq > chain.entries) {
        let problem = format!("it ends at entry {}, before entry {}", chain.entries, lost.seq);
        return Err(anyhow!("the audit log was cut off: {problem}").into());
    }
    chain.check_anchor().map_err(|problem| anyhow!("the audit log is not whole: {problem}"))?;
    let removed = chain.anchor.as_ref().map_or(0, |anchor| anchor.seq);
    if let Some(wrong) = expected.iter().find(|expected| chain.contradicts(expected)) {
        let problem = format!("entry {} had another hash than you noted", wrong.seq);
        return Err(anyhow!("the audit log was rewritten: {problem}").into());
    }
    let head = format!("{}:{}", chain.entries, chain.hash);
    match format {
        Output::Json => json(&serde_json::json!({
            "entries": chain.entries,
            "removed": removed,
            "head": head,
        })),
        Output::Text => {
            let count = chain.entries - removed;
            say(&format!("{count} entries, none changed, taken out or put in."));
            if removed > 0 {
                say(&format!(
                    "The controller removed entries 1 to {removed} before, by its settings for the audit log."
                ));
            }
            for lost in expected.iter().filter(|expected| expected.seq < removed) {
                say(&format!(
                    "Entry {} is among them: what you noted of it cannot be compared.",
                    lost.seq
                ));
            }
            say(&format!(
                "Note this, and give it to a later `shoal audit verify --expect`: {head}"
            ));
        }
    }
    Ok(())
}

/// The state of the verification.
struct Chain {
    /// The number of the last entry.
    entries: u64,
    hash: String,
    /// Where the log begins, if the controller reports that it removed entries.
    anchor: Option<AuditAnchor>,
    /// Whether an entry of the log records the same removal.
    is_anchored: bool,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain { entries: 0, hash: AUDIT_BEGINNING.to_owned(), anchor: None, is_anchored: true }
    }
}

impl From<AuditAnchor> for Chain {
    fn from(anchor: AuditAnchor) -> Chain {
        Chain {
            entries: anchor.seq,
            hash: anchor.hash.clone(),
            anchor: Some(anchor),
            is_anchored: false,
        }
    }
}

impl Chain {
    /// Checks that the log itself records where it begins. Otherwise entries were removed by an attacker.
    fn check_anchor(&self) -> Result<(), String> {
        match &self.anchor {
            Some(anchor) if !self.is_anchored => Err(format!(
                "entries 1 to {} are missing, and no entry says that the controller removed them",
                anchor.seq
            )),
            _ => Ok(()),
        }
    }

    /// Returns whether a hash that was noted earlier contradicts the record of the last removed entry.
    fn contradicts(&self, noted: &AuditHead) -> bool {
        let anchor = self.anchor.as_ref().filter(|anchor| anchor.seq == noted.seq);
        anchor.is_some_and(|anchor| anchor.hash != noted.hash)
    }

    /// Takes the next entry, if its hash follows from the previous one.
    fn follow(&mut self, entry: &AuditEntry) -> Result<(), String> {
        let expected = self.entries + 1;
        if entry.seq != expected {
            return Err(format!("entry {expected} is missing, {} is in its place", entry.seq));
        }
        let digest = Digest::of(entry.hashed_text(&self.hash).as_bytes());
        if digest.as_str() != format!("sha256:{}", entry.hash) {
            return Err(format!("entry {expected}, or its hash, was changed"));
        }
        self.entries = expected;
        self.hash.clone_from(&entry.hash);
        self.is_anchored |= self.anchor.is_some() && entry.removed() == self.anchor;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use api::access::{AUDIT_REMOVER, AUDIT_ROUTE};

    use super::*;

    fn log() -> Vec<AuditEntry> {
        let mut before = AUDIT_BEGINNING.to_owned();
        (1..=4)
            .map(|seq| {
                let mut entry = AuditEntry {
                    seq,
                    at: "2026-01-01T12:00:00.5Z".parse().unwrap(),
                    who: "admin-token".into(),
                    role: "admin".into(),
                    method: "POST".into(),
                    route: "/api/v1/jobs".into(),
                    target: format!("/api/v1/jobs/{seq}"),
                    from: None,
                    status: 202,
                    repeats: None,
                    hash: String::new(),
                };
                let digest = Digest::of(entry.hashed_text(&before).as_bytes());
                entry.hash = digest.as_str().trim_start_matches("sha256:").to_owned();
                before.clone_from(&entry.hash);
                entry
            })
            .collect()
    }

    fn follow(log: &[AuditEntry]) -> Result<u64, String> {
        let mut chain = Chain::default();
        log.iter().try_for_each(|entry| chain.follow(entry)).map(|()| chain.entries)
    }

    #[test]
    fn a_log_that_was_touched_does_not_verify() {
        assert_eq!(follow(&log()), Ok(4));
        let touch = |touch: fn(&mut Vec<AuditEntry>)| {
            let mut log = log();
            touch(&mut log);
            follow(&log).unwrap_err()
        };
        assert!(touch(|log| log[2].who = "x".into()).contains("entry 3"));
        assert!(touch(|log| log[1].status = 403).contains("entry 2"));
        assert!(touch(|log| drop(log.remove(1))).contains("entry 2 is missing"));
        assert!(touch(|log| drop(log.remove(0))).contains("entry 1 is missing"));
        assert!(touch(|log| log.swap(1, 2)).contains("entry 2"));
        assert!(touch(|log| log[0].from = Some("192.0.2.1".into())).contains("entry 1"));
    }

    #[test]
    fn a_log_whose_beginning_the_controller_removed_verifies_from_there_and_no_other_does() {
        let mut log = log();
        let anchor = AuditAnchor { seq: 2, hash: log[1].hash.clone() };
        let mut before = log[3].hash.clone();
        for (target, who) in
            [(anchor.to_target(), AUDIT_REMOVER), ("/api/v1/jobs".to_owned(), "admin-token")]
        {
            let mut entry = AuditEntry { seq: log.len() as u64 + 1, target, ..log[0].clone() };
            (entry.who, entry.route) = (who.into(), AUDIT_ROUTE.into());
            let digest = Digest::of(entry.hashed_text(&before).as_bytes());
            entry.hash = digest.as_str().trim_start_matches("sha256:").to_owned();
            before.clone_from(&entry.hash);
            log.push(entry);
        }
        let follow = |anchor: AuditAnchor, log: &[AuditEntry]| {
            let mut chain = Chain::from(anchor);
            log.iter().try_for_each(|entry| chain.follow(entry))?;
            chain.check_anchor().map(|()| chain.entries)
        };
        let anchored =
            |seq: usize| AuditAnchor { seq: seq as u64, hash: log[seq - 1].hash.clone() };
        assert_eq!(follow(anchor.clone(), &log[2..]), Ok(6));
        // If more entries are removed during the verification, the log still records that.
        for (what, anchor, log, expected) in [
            ("one more is missing", anchored(3), &log[3..], "no entry says"),
            ("the removal itself is missing", anchored(5), &log[5..], "no entry says"),
            ("one is missing behind it", anchor.clone(), &log[3..], "entry 3 is missing"),
            (
                "not the anchor's hash",
                AuditAnchor { hash: "0".into(), ..anchor.clone() },
                &log[2..],
                "entry 3",
            ),
            ("cut off before the removal", anchor.clone(), &log[2..4], "no entry says"),
        ] {
            let problem = follow(anchor, log).expect_err(what);
            assert!(problem.contains(expected), "{what}: {problem}");
        }
        let chain = Chain::from(anchor.clone());
        for (seq, hash, is_other) in
            [(2, &anchor.hash, false), (2, &log[0].hash, true), (1, &log[2].hash, false)]
        {
            let noted = AuditHead { seq, hash: hash.clone() };
            assert_eq!(chain.contradicts(&noted), is_other, "{noted:?}");
        }
    }

    #[test]
    fn a_count_of_refusals_is_part_of_what_is_hashed() {
        let one = log().remove(0);
        let many = AuditEntry { repeats: Some(7), ..one.clone() };
        assert_ne!(one.hashed_text(""), many.hashed_text(""));
        let row = audit_row(&serde_json::to_value(&many).unwrap());
        assert_eq!((row.len(), row[6].as_str()), (AUDIT_HEAD.len(), "202, 7 times"));
        assert_eq!(audit_row(&serde_json::to_value(&one).unwrap())[6], "202");
    }

    #[test]
    fn the_first_entry_of_the_format_has_this_hash_for_ever() {
        // printf '["",1,1767268800500,"admin-token","admin","POST","/api/v1/jobs","/api/v1/jobs/1",null,202]' | sha256sum
        let hash = "156a1f201e06ea012648b7772950fa3504638dff62f038d1e2aebbef48d21185";
        assert_eq!(log()[0].hash, hash);
    }
}
