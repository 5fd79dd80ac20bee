// SPDX-License-Identifier: AGPL-3.0-or-later
//! A hostile or broken BMC: every visit to it ends within limits, with or without an error, and reveals no secret.

use std::time::{Duration, Instant};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use redfish::{Bmc, Budgets};
use serde_json::{Value, json};

use super::played::{Bmc as Played, drip, reply};
use super::{INSERT, SESSIONS, SYSTEM, TOKEN, budgets, connect, endpoint, medium, named};

/// Documents with property names that the client reads, at the wrong positions.
fn evil() -> impl Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        Just(json!("/redfish/v1/Systems")),
        Just(json!("/redfish/v1/Systems/1")),
        Just(json!("//192.0.2.1/redfish/v1")),
        Just(json!("file:///etc/passwd")),
        Just(json!({"@odata.id": "/redfish/v1/Systems/1"})),
    ];
    let names = [
        "@odata.id",
        "Members",
        "Systems",
        "Managers",
        "Links",
        "ManagedBy",
        "VirtualMedia",
        "Boot",
        "Actions",
        "target",
        "Oem",
        "Vendor",
        "SerialNumber",
        "Sessions",
        "MediaTypes",
        "Image",
        "@Redfish.Settings",
        "SettingsObject",
        "#ComputerSystem.Reset",
        "PowerState",
        "LogServices",
        "Entries",
        "Members@odata.nextLink",
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(names.to_vec()), inner), 0..8)
                .prop_map(|members| {
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                }),
        ]
    })
}

#[tokio::test]
async fn any_answers_end_a_visit_bounded() {
    let short = || Budgets {
        retries: Duration::ZERO,
        effect: Duration::from_millis(20),
        insert: Duration::from_millis(20),
        ..budgets()
    };
    let mut runner = TestRunner::deterministic();
    let strategy = evil();
    let drawn = std::sync::Arc::new(std::sync::Mutex::new(Vec::<Value>::new()));
    let answers = drawn.clone();
    let played = Played::start(move |seen, nth| {
        let answers = answers.lock().unwrap();
        let is_login = seen.path == SESSIONS;
        // Different documents for different paths, so that some walks go far.
        let spread = seen.path.len() + nth;
        (!is_login && !answers.is_empty())
            .then(|| reply(200, answers[spread % answers.len()].clone()))
    })
    .await;
    for _round in 0..60 {
        let documents = (0..7).map(|_| strategy.new_tree(&mut runner).unwrap().current());
        *drawn.lock().unwrap() = documents.collect();
        let begun = Instant::now();
        let before = played.seen().len();
        if let Ok(bmc) = Bmc::connect(&endpoint(&played), short()).await {
            if let Ok(machine) = bmc.machine(None).await {
                for slot in &machine.slots {
                    let _any = bmc.insert(slot, &medium()).await.is_ok();
                }
                let _any = bmc.set_boot_once_cd(&machine).await.is_ok();
                let _any = bmc.clear_boot_override(&machine).await.is_ok();
            }
            bmc.close().await;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(played.seen().len() - before < 3000, "{}", played.seen().len() - before);
    }
}

#[tokio::test]
async fn bombs_redirects_and_drips_are_refused() {
    let bomb = |depth: usize| {
        let mut body = json!(1);
        for _ in 0..depth {
            body = json!([body]);
        }
        body
    };
    for (answer, why) in [
        (reply(200, bomb(100)), "nests deeper than 64 levels"),
        (reply(200, json!(vec![0; 200_000])), "more than 100000 values"),
        (reply(200, json!("x".repeat(5 << 20))), "larger than 4194304 bytes"),
        (reply(302, json!({})).header("location", "https://192.0.2.1/redfish/v1"), "HTTP 302"),
        (drip(), "less than 256 bytes a second"),
    ] {
        let answer = std::sync::Mutex::new(Some(answer));
        let played = Played::start(move |seen, _nth| {
            (seen.path == SYSTEM).then(|| answer.lock().unwrap().take()).flatten()
        })
        .await;
        let error = connect(&played).await.machine(named("SN1")).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_transcript_tells_what_happened_and_no_secret() {
    let canary = "canary-password";
    let played = Played::start(move |seen, nth| match (seen.path.as_str(), nth) {
        (INSERT, _) => Some(reply(500, json!({"error": {"message": format!("no {}", medium())}}))),
        (SYSTEM, _) if seen.method == "GET" => None,
        _ => None,
    })
    .await;
    played.state().said.insert(SYSTEM, json!({"Oem": {"Test": {"Password": canary}}}));
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.insert(&machine.slots[0], &medium()).await.unwrap_err();
    let transcript = bmc.transcript();
    let insert = transcript.iter().find(|exchange| exchange.path == INSERT).unwrap();
    assert_eq!((insert.method.as_str(), insert.status), ("POST", Some(500)));
    assert_eq!(
        insert.request.as_deref(),
        Some(r#"{"Image":"https://controller:8443/m/***/task.iso"}"#)
    );
    assert!(transcript.iter().any(|exchange| exchange.path == SYSTEM && exchange.answer.is_some()));
    let text = serde_json::to_string(&transcript).unwrap();
    for secret in [TOKEN, canary, "token-1", "\"p\""] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(bmc.transcript(), [], "it is told once");
}

/// A BMC that repeats credentials in the forms in which its web server, its log and its proxy write them.
#[tokio::test]
async fn a_bmc_that_repeats_its_password_or_session_is_not_quoted() {
    const PASSWORD: &str = "p&ss/w\"rd 1";
    // By Python's base64.b64encode(b'u:p&ss/w"rd 1').
    const BASIC: &str = "dTpwJnNzL3cicmQgMQ==";
    const SESSION: &str = "short-session-1";
    let forms = [PASSWORD, "p%26ss%2Fw%22rd%201", "p&amp;ss/w&quot;rd 1", BASIC, SESSION];
    let echo = format!("bad login {}", forms.join(" | "));
    let said = echo.clone();
    let played = Played::start(move |seen, _nth| match seen.path.as_str() {
        SESSIONS if seen.method == "POST" => {
            Some(reply(201, json!({"Id": "1", "Name": said})).header("x-auth-token", SESSION))
        }
        INSERT => Some(reply(500, json!({"error": {"message": said}}))),
        _ => None,
    })
    .await;
    played.state().said.insert(
        SYSTEM,
        json!({"BootProgress": {"LastState": echo, "OemLastState": echo}, "AssetTag": echo}),
    );
    let endpoint =
        redfish::Endpoint { password: redfish::Secret::new(PASSWORD.into()), ..endpoint(&played) };
    let bmc = Bmc::connect(&endpoint, budgets()).await.unwrap();
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.insert(&machine.slots[0], &medium()).await.unwrap_err().to_string();
    let progress = bmc.boot_progress(&machine).await.unwrap().unwrap();
    let transcript = serde_json::to_string(&bmc.transcript()).unwrap();
    let hidden = "bad login *** | *** | *** | *** | ***";
    for told in [&error, &progress.state, &progress.oem_state.unwrap(), &transcript] {
        assert!(told.contains(hidden), "{told}");
        for form in forms {
            assert!(!told.contains(form), "{form} in {told}");
        }
    }
}
