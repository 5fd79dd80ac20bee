// SPDX-License-Identifier: AGPL-3.0-or-later
//! A BMC's refusals as the caller sees them: the reason, its consequences, and the evidence.

use std::time::Duration;

use redfish::{Bmc, Budgets, Cause, Error, Shutdown};
use serde_json::{Value, json};

use super::played::{Bmc as Played, Reply, Seen, raw, reply};
use super::{INSERT, SESSIONS, SYSTEM, TOKEN, budgets, connect, endpoint, medium, named};

const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

fn info(id: &str, text: &str) -> Value {
    json!({"error": {"code": "Base.1.12.GeneralError", "message": "A general error has occurred.",
        "@Message.ExtendedInfo": [{"MessageId": id, "Message": text}]}})
}

/// The form of iLO: no text, and a message that refers to nothing.
fn id_alone(id: &str, args: &[&str]) -> Value {
    json!({"error": {"code": "iLO.0.10.ExtendedInfo",
        "message": "See @Message.ExtendedInfo for more information.",
        "@Message.ExtendedInfo": [{"MessageId": id, "MessageArgs": args}]}})
}

fn in_post() -> Reply {
    let id = "iLO.2.37.UnableToModifyDuringSystemPOST";
    reply(400, id_alone(id, &["BootSourceOverrideTarget"]))
}

/// Budgets without retries for temporary errors.
fn hasty() -> Budgets {
    Budgets { retries: Duration::ZERO, effect: Duration::from_millis(100), ..budgets() }
}

/// Status, body or text, the cause if it is not the credentials, and a part of the reason.
type Login = (u16, Result<Value, &'static str>, Option<Cause>, &'static str);

#[tokio::test]
async fn a_login_that_is_refused_for_another_cause_is_no_refusal_of_the_credentials() {
    let page = "<html><head><title>403</title></head><body>Too many sessions</body></html>";
    let cases: Vec<Login> = vec![
        (401, Ok(info("Base.1.8.SessionLimitExceeded", "")), Some(Cause::SessionLimit), "session"),
        (403, Ok(id_alone("Base.1.18.SessionLimitExceeded", &[])), Some(Cause::SessionLimit), ""),
        (
            400,
            Ok(info("X.1.0.Y", "the maximum number of sessions is reached")),
            Some(Cause::SessionLimit),
            "Y",
        ),
        (403, Err(page), Some(Cause::SessionLimit), "Too many sessions"),
        (
            403,
            Ok(info("Base.1.12.PasswordChangeRequired", "")),
            Some(Cause::PasswordChange),
            "changed",
        ),
        (401, Ok(json!({"error": "The account is locked"})), Some(Cause::AccountLocked), "locked"),
        (
            401,
            Ok(id_alone("iLO.2.8.LoginAttemptDelayedSeconds", &["10"])),
            Some(Cause::AccountLocked),
            "10",
        ),
        (
            403,
            Ok(info("IDRAC.2.8.LIC501", "A required license is missing.")),
            Some(Cause::NoLicence),
            "LIC501",
        ),
        // These count as refused credentials, whatever the BMC calls it.
        (401, Ok(json!({})), None, ""),
        (403, Ok(Value::Null), None, ""),
        (
            401,
            Ok(info("Base.1.5.InsufficientPrivilege", "There are insufficient privileges.")),
            None,
            "insufficient",
        ),
        (
            401,
            Ok(info("Security.1.0.AccessDenied", "The service was denied access.")),
            None,
            "denied",
        ),
        (
            400,
            Ok(id_alone("iLO.2.8.UnauthorizedLoginAttempt", &[])),
            None,
            "UnauthorizedLoginAttempt",
        ),
        (401, Err("<h1>401 Unauthorized</h1>"), None, "401 Unauthorized"),
    ];
    for (status, body, cause, words) in cases {
        let said = format!("{status} {body:?}");
        let played = Played::start(move |seen, _nth| {
            (seen.method == "POST" && seen.path == SESSIONS).then(|| match &body {
                Ok(body) => reply(status, body.clone()),
                Err(text) => raw(status, *text),
            })
        })
        .await;
        let error = Bmc::connect(&endpoint(&played), hasty()).await.err().unwrap();
        assert_eq!(error.cause(), cause, "{said}: {error}");
        assert_eq!(matches!(error, Error::Unauthorized { .. }), cause.is_none(), "{said}: {error}");
        assert!(error.to_string().contains(words), "{said}: {error}");
        assert_eq!(error.is_transient(), cause == Some(Cause::SessionLimit), "{said}: {error}");
    }
}

#[tokio::test]
async fn a_free_session_is_waited_for_whatever_status_the_bmc_has_for_it() {
    for status in [400, 401, 403, 500, 503] {
        let played = Played::start(move |seen, nth| {
            let is_full = seen.method == "POST" && seen.path == SESSIONS && nth <= 2;
            is_full.then(|| reply(status, id_alone("Base.1.8.SessionLimitExceeded", &[])))
        })
        .await;
        connect(&played).await.machine(named("SN1")).await.unwrap();
        assert_eq!(played.count("POST", SESSIONS), 3, "{status}");
    }
}

#[tokio::test]
async fn basic_credentials_are_not_called_refused_for_another_cause() {
    let played = Played::start(|seen, _nth| {
        (seen.path == "/redfish/v1/Systems")
            .then(|| reply(401, json!({"error": {"message": "the account is locked"}})))
    })
    .await;
    played.state().said.insert("/redfish/v1", json!({"Links": {}}));
    let bmc = Bmc::connect(&endpoint(&played), hasty()).await.unwrap();
    let error = bmc.machine(named("SN1")).await.unwrap_err();
    assert_eq!(error.cause(), Some(Cause::AccountLocked), "{error}");
    assert!(!bmc.is_refused());
}

#[tokio::test]
async fn a_session_that_may_only_change_the_password_is_ended_and_told() {
    let played = Played::start(|seen, _nth| {
        (seen.method == "POST" && seen.path == SESSIONS).then(|| {
            let info = json!([{"MessageId": "Base.1.5.PasswordChangeRequired", "MessageArgs": ["u"],
                "Message": "The password must be changed."}]);
            reply(201, json!({"Id": "7", "@Message.ExtendedInfo": info}))
                .header("x-auth-token", "token-7")
                .header("location", &format!("{SESSIONS}/7"))
        })
    })
    .await;
    let error = Bmc::connect(&endpoint(&played), hasty()).await.err().unwrap();
    assert_eq!(error.cause(), Some(Cause::PasswordChange), "{error}");
    assert!(!error.is_transient(), "{error}");
    assert_eq!(played.count("DELETE", &format!("{SESSIONS}/7")), 1);

    // Another BMC returns it for each request of the session.
    let played = Played::start(|seen, _nth| {
        (seen.path == "/redfish/v1/Systems")
            .then(|| reply(403, id_alone("Base.1.8.PasswordChangeRequired", &[])))
    })
    .await;
    let error = connect(&played).await.machine(named("SN1")).await.unwrap_err();
    assert_eq!(error.cause(), Some(Cause::PasswordChange), "{error}");
}

#[tokio::test]
async fn the_words_of_a_refusal_are_in_the_reason_and_its_body_in_the_evidence() {
    let url = medium();
    let echo = format!("<html><body><h1>Forbidden</h1>password=p0ssw0rd-x {url}</body></html>");
    let cases: Vec<(Result<Value, String>, &str)> = vec![
        (
            Ok(id_alone("iLO.2.8.LicenseKeyRequired", &["Virtual Media"])),
            "iLO.2.8.LicenseKeyRequired (Virtual Media)",
        ),
        (
            Ok(id_alone("iLO.2.8.MaxVirtualMediaConnectionEstablished", &[])),
            "iLO.2.8.MaxVirtualMediaConnectionEstablished",
        ),
        (
            Ok(
                json!({"Messages": {"MessageID": "Vendor.1.0.SlotOutOfService", "MessageArgs": ["2"]}}),
            ),
            "Vendor.1.0.SlotOutOfService (2)",
        ),
        (Err(echo), "Forbidden"),
    ];
    for (body, words) in cases {
        let played = Played::start(move |seen, _nth| {
            (seen.path == INSERT).then(|| match &body {
                Ok(body) => reply(403, body.clone()),
                Err(text) => raw(403, text.clone()),
            })
        })
        .await;
        let mut login = endpoint(&played);
        login.password = redfish::Secret::new("p0ssw0rd-x".into());
        played.state().said.insert("/redfish/v1", json!({"Links": {}}));
        let bmc = Bmc::connect(&login, hasty()).await.unwrap();
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let error = bmc.insert(&machine.slots[0], &medium()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        let kept = bmc.transcript();
        let refused = kept.iter().rfind(|one| one.path == INSERT).unwrap();
        let body = refused.answer.as_deref().unwrap();
        assert_eq!(refused.status, Some(403));
        for part in words.split([' ', '(', ')']).filter(|part| !part.is_empty()) {
            assert!(body.contains(part), "{part}: {body}");
        }
        for text in [body, &error.to_string()] {
            assert!(!text.contains("p0ssw0rd-x") && !text.contains(TOKEN), "{text}");
        }
    }
}

#[tokio::test]
async fn what_is_refused_in_post_is_asked_for_until_post_is_over() {
    let is_write =
        |seen: &Seen| seen.path == RESET || seen.method == "PATCH" && seen.path == SYSTEM;
    let played = Played::start(move |seen, nth| (is_write(seen) && nth <= 3).then(in_post)).await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    bmc.power_on(&machine).await.unwrap();
    bmc.set_boot_once_cd(&machine).await.unwrap();
    assert_eq!((played.count("POST", RESET), played.count("PATCH", SYSTEM)), (4, 4));

    // POST does not end.
    let played = Played::start(move |seen, _nth| is_write(seen).then(in_post)).await;
    played.state().is_on = true;
    let bmc = Bmc::connect(&endpoint(&played), hasty()).await.unwrap();
    let machine = bmc.machine(named("SN1")).await.unwrap();
    for error in [
        bmc.power_off(&machine, Shutdown::Forced).await.unwrap_err(),
        bmc.set_boot_once_cd(&machine).await.unwrap_err(),
    ] {
        assert_eq!(error.cause(), Some(Cause::InPost), "{error}");
        assert!(error.is_transient() && error.to_string().contains("in POST"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_without_words_in_post_is_one_that_passes() {
    let post = json!({"BootProgress": {"LastState": "MemoryInitializationStarted"}});
    let running = json!({"BootProgress": {"LastState": "OSRunning"}});
    let ilo = json!({"Oem": {"Hpe": {"PostState": "InPost"}}});
    for (said, is_on, cause) in [
        (post.clone(), true, Some(Cause::InPost)),
        (ilo, true, Some(Cause::InPost)),
        (running, true, None),
        (json!({}), true, None),
        // If the machine is off, this is the state of its last boot.
        (post, false, None),
    ] {
        let what = format!("{said} {is_on}");
        let played = Played::start(|seen, _nth| {
            let is_write = seen.path == RESET || seen.method == "PATCH" && seen.path == SYSTEM;
            is_write.then(|| reply(400, json!({})))
        })
        .await;
        played.state().is_on = is_on;
        played.state().said.insert(SYSTEM, said);
        let bmc = Bmc::connect(&endpoint(&played), hasty()).await.unwrap();
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let reset = match is_on {
            true => bmc.power_off(&machine, Shutdown::Forced).await,
            false => bmc.power_on(&machine).await,
        };
        for error in [reset.unwrap_err(), bmc.set_boot_once_cd(&machine).await.unwrap_err()] {
            assert_eq!(error.cause(), cause, "{what}: {error}");
            assert_eq!(error.is_transient(), cause.is_some(), "{what}: {error}");
        }
    }
}

#[tokio::test]
async fn a_cause_that_does_not_pass_is_not_waited_for() {
    let played = Played::start(|seen, _nth| {
        (seen.path == RESET).then(|| reply(503, id_alone("iLO.2.8.LicenseKeyRequired", &[])))
    })
    .await;
    let bmc = connect(&played).await;
    let machine = bmc.machine(named("SN1")).await.unwrap();
    let error = bmc.power_on(&machine).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("license"), "{error}");
    assert_eq!(played.count("POST", RESET), 1);
}

#[tokio::test]
async fn a_task_tells_why_it_failed_in_every_shape() {
    for (messages, words) in [
        (
            json!([{"MessageId": "Base.1.8.GeneralError"}, {"MessageId": "X.1.0.MediaGone"}]),
            "X.1.0.MediaGone",
        ),
        (
            json!({"MessageId": "iBMC.1.0.ConnectionFailed", "MessageArgs": ["NFS"]}),
            "iBMC.1.0.ConnectionFailed (NFS)",
        ),
        (
            json!([{"MessageId": "X.1.0.Y", "Message": "no room for %1", "MessageArgs": ["it"]}]),
            "no room for it",
        ),
        (json!([]), "no reason given"),
    ] {
        let played = Played::start(move |seen, _nth| match seen.path.as_str() {
            INSERT => Some(reply(202, json!({"@odata.id": "/redfish/v1/Tasks/1"}))),
            "/redfish/v1/Tasks/1" => Some(reply(
                200,
                json!({"TaskState": "Exception", "Description": "a task",
                    "Messages": messages.clone()}),
            )),
            _ => None,
        })
        .await;
        let bmc = connect(&played).await;
        let machine = bmc.machine(named("SN1")).await.unwrap();
        let error = bmc.insert(&machine.slots[0], &medium()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}
