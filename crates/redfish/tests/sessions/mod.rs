// SPDX-License-Identifier: AGPL-3.0-or-later
//! Sessions of a BMC that has four: each visit ends its own session, in whatever way the BMC reports its location.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use redfish::Bmc;
use serde_json::{Value, json};

use super::played::{Bmc as Played, Reply, Seen, reply};
use super::{SESSIONS, budgets, connect, endpoint, named};

const SESSIONS_MAX: usize = 4;

/// The numbers of the sessions that are open.
type Open = Arc<Mutex<BTreeSet<String>>>;

/// The login's reply for a session with this number: `Location` and body.
type Told = fn(&str) -> (Option<String>, Value);

/// The sessions of a BMC that reports their locations in this way.
fn keeps(
    open: &Open,
    told: Told,
) -> impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static {
    let open = open.clone();
    move |seen, nth| {
        let mut open = open.lock().unwrap();
        match (seen.method.as_str(), seen.path.as_str()) {
            ("POST", SESSIONS) if open.len() == SESSIONS_MAX => Some(reply(403, json!({}))),
            ("POST", SESSIONS) => {
                open.insert(nth.to_string());
                let (location, body) = told(&nth.to_string());
                let answer = reply(201, body).header("x-auth-token", &format!("token-{nth}"));
                Some(match location {
                    Some(location) => answer.header("location", &location),
                    None => answer,
                })
            }
            ("DELETE", path) => {
                let number = path.strip_prefix(SESSIONS).map(|rest| rest.trim_matches('/'));
                let is_open = number.is_some_and(|number| open.remove(number));
                Some(reply(if is_open { 204 } else { 404 }, Value::Null))
            }
            _ => None,
        }
    }
}

#[tokio::test]
async fn a_session_is_ended_wherever_the_bmc_says_that_it_is() {
    let cases: &[(&str, Told)] = &[
        ("path", |n| (Some(format!("{SESSIONS}/{n}")), Value::Null)),
        ("slash at its end", |n| (Some(format!("{SESSIONS}/{n}/")), Value::Null)),
        ("another host", |n| (Some(format!("https://bmc-42.example{SESSIONS}/{n}")), Value::Null)),
        ("host and port", |n| (Some(format!("https://bmc-42:443{SESSIONS}/{n}/")), Value::Null)),
        ("http", |n| (Some(format!("http://127.0.0.1{SESSIONS}/{n}")), Value::Null)),
        ("own host, no port", |n| (Some(format!("https://127.0.0.1{SESSIONS}/{n}")), json!({}))),
        ("no scheme", |n| (Some(format!("//192.0.2.1{SESSIONS}/{n}")), Value::Null)),
        ("no leading slash", |n| (Some(format!("{}/{n}", &SESSIONS[1..])), Value::Null)),
        ("relative", |n| (Some(format!("Sessions/{n}")), Value::Null)),
        ("id only", |n| (Some(n.to_owned()), Value::Null)),
        ("body", |n| (None, json!({"@odata.id": format!("{SESSIONS}/{n}"), "Id": n}))),
        ("body with a host", |n| {
            (None, json!({"@odata.id": format!("https://bmc-42.example{SESSIONS}/{n}")}))
        }),
        ("id in the body", |n| (None, json!({"Id": n, "Name": "User Session"}))),
        ("wrong, and a body", |n| (Some(format!("/rest/v1/{n}")), json!({"Id": n}))),
        ("the collection", |n| (Some(SESSIONS.into()), json!({"Id": n}))),
        ("empty", |n| (Some(String::new()), json!({"Id": n}))),
        ("not a URL", |n| (Some("https://".into()), json!({"Id": n}))),
    ];
    for (what, told) in cases {
        let open = Open::default();
        let played = Played::start(keeps(&open, *told)).await;
        for visit in 0..SESSIONS_MAX + 2 {
            let bmc = Bmc::connect(&endpoint(&played), budgets()).await;
            let bmc = bmc.unwrap_or_else(|error| panic!("{what}: visit {visit}: {error}"));
            bmc.close().await;
        }
        assert_eq!(*open.lock().unwrap(), BTreeSet::new(), "{what}");
        let deleted = played.seen().into_iter().filter(|seen| seen.method == "DELETE");
        assert!(deleted.clone().all(|seen| seen.token.is_some()), "{what}");
        assert!(deleted.clone().all(|seen| seen.path != SESSIONS), "{what}");
    }
}

/// A 401 does not prove that the session is over: on some BMCs it concerns a resource.
#[tokio::test]
async fn a_session_that_is_opened_anew_is_not_one_more() {
    let open = Open::default();
    let told: Told = |n| (Some(format!("{SESSIONS}/{n}")), Value::Null);
    let keeps = keeps(&open, told);
    let played = Played::start(move |seen, nth| match seen.path.as_str() {
        "/redfish/v1/Systems" => Some(reply(401, json!({}))),
        _ => keeps(seen, nth),
    })
    .await;
    for _ in 0..SESSIONS_MAX {
        let bmc = connect(&played).await;
        bmc.machine(named("SN1")).await.unwrap_err();
        assert_eq!(open.lock().unwrap().len(), 1);
        bmc.close().await;
    }
    assert_eq!(*open.lock().unwrap(), BTreeSet::new());
}

#[tokio::test]
async fn a_session_without_a_token_is_ended_and_basic_is_used() {
    let open = Open::default();
    let counted = open.clone();
    let played = Played::start(move |seen, nth| match (seen.method.as_str(), &*seen.path) {
        ("POST", SESSIONS) => {
            counted.lock().unwrap().insert(nth.to_string());
            Some(reply(201, json!({"Id": nth.to_string()})))
        }
        ("DELETE", path) => {
            let number = path.rsplit('/').next().unwrap();
            let is_open = counted.lock().unwrap().remove(number) && seen.basic.is_some();
            Some(reply(if is_open { 204 } else { 401 }, Value::Null))
        }
        _ => None,
    })
    .await;
    let bmc = connect(&played).await;
    bmc.machine(named("SN1")).await.unwrap();
    assert_eq!(*open.lock().unwrap(), BTreeSet::new());
    assert_eq!(played.seen().pop().unwrap().basic.as_deref(), Some("u:p"));
}
