// SPDX-License-Identifier: AGPL-3.0-or-later
//! The message matrix: every node message, in every state of a job, in every way in which it may arrive. A table gives
//! the expected status and all permitted changes of each cell; any other change is a wrong effect.
//! `cargo test -p controller node_messages -- --nocapture` prints the cells.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use job::{Action, Event, Outcome, Stage, State};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{about, bmc, rows, session_sha256, session_token, temp_dir, with_job};
use crate::http;
use crate::http::App;
use crate::keys;
use crate::store::NewJobRow;
use crate::time::now_ms;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Hello,
    Recipe,
    Permit,
    Progress,
    Log,
    Success,
    Failure,
}

const MESSAGES: [Message; 7] = [
    Message::Hello,
    Message::Recipe,
    Message::Permit,
    Message::Progress,
    Message::Log,
    Message::Success,
    Message::Failure,
];

/// How far the job is, and whether its machine has said hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Queued,
    Building,
    Inserting,
    Reinserting,
    Booting,
    BootingHeard,
    Awaiting,
    AwaitingHeard,
    Writing,
    PoweringOff,
    Ejecting,
    Starting,
    EjectingUnused,
    Complete,
}

const PHASES: [Phase; 14] = [
    Phase::Queued,
    Phase::Building,
    Phase::Inserting,
    Phase::Reinserting,
    Phase::Booting,
    Phase::BootingHeard,
    Phase::Awaiting,
    Phase::AwaitingHeard,
    Phase::Writing,
    Phase::PoweringOff,
    Phase::Ejecting,
    Phase::Starting,
    Phase::EjectingUnused,
    Phase::Complete,
];

impl Phase {
    fn is_heard(self) -> bool {
        match self {
            Phase::BootingHeard
            | Phase::AwaitingHeard
            | Phase::Writing
            | Phase::PoweringOff
            | Phase::Ejecting
            | Phase::Starting
            | Phase::Complete => true,
            Phase::Queued
            | Phase::Building
            | Phase::Inserting
            | Phase::Reinserting
            | Phase::Booting
            | Phase::Awaiting
            | Phase::EjectingUnused => false,
        }
    }

    fn is_over(self) -> bool {
        matches!(
            self,
            Phase::PoweringOff
                | Phase::Ejecting
                | Phase::Starting
                | Phase::EjectingUnused
                | Phase::Complete
        )
    }
}

/// How a message arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Once,
    /// Its response is lost, so it is sent again.
    Lost,
    /// Two copies arrive at the same time.
    Duplicated,
    /// A message that arrives out of order: after one that was sent later.
    Reordered,
    /// From a sender without a token, or with a token for something else.
    Forged,
    /// Sent again after the job has ended.
    Replayed,
    /// From the boot before the current one.
    Stale,
    /// With a token that is valid for another job.
    OfAnotherAttempt,
}

const WAYS: [How; 8] = [
    How::Once,
    How::Lost,
    How::Duplicated,
    How::Reordered,
    How::Forged,
    How::Replayed,
    How::Stale,
    How::OfAnotherAttempt,
];

/// Everything that a message could change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    state: State,
    boot_id: Option<String>,
    has_permit: bool,
    progress_seq: Option<u64>,
    log_lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Nothing,
    Session,
    Permit,
    Progress,
    Log,
    Succeeds,
    Fails(&'static str),
}

/// The table: the expected status of a machine's message in a phase, and its effect.
fn rule(message: Message, phase: Phase) -> (u16, Effect) {
    if message == Message::Hello {
        return match phase {
            Phase::Queued | Phase::Building => (503, Effect::Nothing),
            Phase::Inserting | Phase::Reinserting | Phase::Booting | Phase::Awaiting => {
                (204, Effect::Session)
            }
            Phase::BootingHeard | Phase::AwaitingHeard | Phase::Writing => (204, Effect::Nothing),
            Phase::PoweringOff
            | Phase::Ejecting
            | Phase::Starting
            | Phase::EjectingUnused
            | Phase::Complete => (410, Effect::Nothing),
        };
    }
    if !phase.is_heard() {
        return (401, Effect::Nothing);
    }
    match (message, phase) {
        // The jobs that are over here have succeeded.
        (Message::Success, _) if phase.is_over() => (204, Effect::Nothing),
        _ if phase.is_over() => (410, Effect::Nothing),
        // Only the boot with the permit gets the secrets.
        (Message::Recipe, Phase::Writing) => (200, Effect::Nothing),
        (Message::Recipe, _) => (409, Effect::Nothing),
        (Message::Permit, Phase::BootingHeard) => (503, Effect::Nothing),
        (Message::Permit, Phase::AwaitingHeard) => (200, Effect::Permit),
        (Message::Permit, _) => (200, Effect::Nothing),
        (Message::Progress, _) => (204, Effect::Progress),
        (Message::Log, _) => (204, Effect::Log),
        (Message::Success, Phase::Writing) => (204, Effect::Succeeds),
        (Message::Success, _) => (409, Effect::Nothing),
        (Message::Failure, _) => (204, Effect::Fails("partition.service")),
        (Message::Hello, _) => unreachable!("answered above"),
    }
}

/// The state `before`, changed as `effect` permits.
fn after(before: &Seen, effect: Effect) -> Seen {
    let mut after = before.clone();
    match effect {
        Effect::Nothing => {}
        Effect::Session => after.boot_id = Some("b1".into()),
        Effect::Permit => {
            after.has_permit = true;
            after.state = State::Provisioning(Stage::Writing);
        }
        Effect::Progress => after.progress_seq = Some(1),
        Effect::Log => after.log_lines = 1,
        Effect::Succeeds => after.state = closing(Outcome::Succeeded),
        Effect::Fails(step) => {
            let reason = String::new();
            after.state = closing(Outcome::Failed(job::Failure { step: step.into(), reason }));
        }
    }
    after
}

fn closing(outcome: Outcome) -> State {
    State::Closing { outcome, cleanup: job::Cleanup::PoweringOff, problem: None }
}

/// The state without the reason of a failure: only the failed step is compared.
fn without_words(mut seen: Seen) -> Seen {
    if let State::Closing { outcome: Outcome::Failed(why), .. }
    | State::Complete { outcome: Outcome::Failed(why), .. } = &mut seen.state
    {
        why.reason.clear();
    }
    seen
}

struct World {
    app: App,
    router: Router,
    jobs: usize,
}

/// One job of the world.
#[derive(Clone)]
struct Machine {
    job: String,
    attempt: String,
    serial: String,
}

impl World {
    async fn job(&mut self) -> Machine {
        self.jobs += 1;
        let number = self.jobs;
        let machine = Machine {
            job: format!("job{number}"),
            attempt: format!("attempt{number}"),
            serial: format!("SERIAL{number}"),
        };
        self.app.store.put_server(rows::server(&machine.serial)).await.unwrap();
        let token = self.app.keys.attempt_token(&machine.attempt);
        let new = NewJobRow {
            token_hash: keys::sha256(token.as_bytes()),
            ..rows::job(&machine.job, &machine.serial, &machine.attempt)
        };
        self.app.store.create_job(new).await.unwrap();
        machine
    }

    async fn apply(&self, machine: &Machine, event: Event) {
        self.app.store.apply(&machine.job, None, event, "test".into(), now_ms()).await.unwrap();
    }

    /// A job in `phase`. If its machine has said hello, that was boot `b1`, and with `former` boot `b0` before it.
    async fn job_in(&mut self, phase: Phase, former: bool) -> Machine {
        let machine = self.job().await;
        let done = |action| Event::Done(action);
        let mut events = Vec::new();
        let depth = match phase {
            Phase::Queued => 0,
            Phase::Building => 1,
            Phase::Inserting | Phase::EjectingUnused => 2,
            Phase::Booting | Phase::BootingHeard => 3,
            Phase::Reinserting
            | Phase::Awaiting
            | Phase::AwaitingHeard
            | Phase::Writing
            | Phase::PoweringOff
            | Phase::Ejecting
            | Phase::Starting
            | Phase::Complete => 4,
        };
        events.extend(rows::until_awaited().into_iter().take(depth));
        match phase {
            Phase::Reinserting => events.push(Event::BootLost),
            Phase::EjectingUnused => events.push(Event::Cancelled),
            _ => {}
        }
        for event in events {
            self.apply(&machine, event).await;
        }
        if !phase.is_heard() {
            return machine;
        }
        if former {
            assert_eq!(self.say(&machine, Message::Hello, "b0", 0).await, 204);
        }
        assert_eq!(self.say(&machine, Message::Hello, "b1", 0).await, 204);
        if phase == Phase::Writing || phase.is_over() {
            assert_eq!(self.say(&machine, Message::Permit, "b1", 0).await, 200);
        }
        let ends = [
            Event::Reported(Outcome::Succeeded),
            done(Action::PowerOff),
            done(Action::EjectMedia),
            done(Action::StartMachine),
        ];
        let count = match phase {
            Phase::PoweringOff => 1,
            Phase::Ejecting => 2,
            Phase::Starting => 3,
            Phase::Complete => 4,
            _ => 0,
        };
        for event in ends.into_iter().take(count) {
            self.apply(&machine, event).await;
        }
        machine
    }

    /// Sends a message as a boot of the machine would, and returns the status.
    async fn say(&self, machine: &Machine, message: Message, boot: &str, seq: u64) -> u16 {
        let token = match message {
            Message::Hello => self.app.keys.attempt_token(&machine.attempt),
            _ => session(machine, boot),
        };
        self.send(machine, message, boot, seq, &token).await
    }

    async fn send(
        &self,
        machine: &Machine,
        message: Message,
        boot: &str,
        seq: u64,
        token: &str,
    ) -> u16 {
        let (name, body) = body(machine, message, boot, seq);
        let path = format!("/api/v1/node/attempts/{}/{name}", machine.attempt);
        let request = match message {
            Message::Recipe => Request::get(path),
            _ => Request::post(path),
        };
        let request = request
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        assert_ne!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        answer.status().as_u16()
    }

    async fn seen(&self, machine: &Machine) -> Seen {
        let job = self.app.store.job(&machine.job).await.unwrap();
        let events = self.app.store.events(&machine.job, 0, 1000).await.unwrap();
        Seen {
            state: job.state,
            boot_id: job.boot_id,
            has_permit: job.permit.is_some(),
            progress_seq: job.progress.map(|progress| progress.seq),
            log_lines: events.iter().filter(|event| event.kind == "log").count(),
        }
    }

    /// Runs one cell. Returns the last statuses, and the state before and after.
    async fn play(&mut self, message: Message, phase: Phase, how: How) -> (Vec<u16>, Seen, Seen) {
        let machine = self.job_in(phase, how == How::Stale).await;
        let before = self.seen(&machine).await;
        let answers = match how {
            How::Once => vec![self.say(&machine, message, "b1", 1).await],
            How::Lost => vec![
                self.say(&machine, message, "b1", 1).await,
                self.say(&machine, message, "b1", 1).await,
            ],
            How::Duplicated => {
                let say = || self.say(&machine, message, "b1", 1);
                let (one, two) = tokio::join!(say(), say());
                vec![one, two]
            }
            How::Reordered => {
                if matches!(message, Message::Progress | Message::Log) {
                    self.say(&machine, message, "b1", 2).await;
                } else if phase.is_heard() {
                    self.say(&machine, Message::Log, "b1", 1).await;
                }
                vec![self.say(&machine, message, "b1", 1).await]
            }
            How::Forged => {
                let wrong = if message == Message::Hello {
                    session(&machine, "b1")
                } else {
                    self.app.keys.attempt_token(&machine.attempt)
                };
                let pull = self.app.keys.pull_token(&machine.attempt);
                let mut answers = Vec::new();
                for token in [wrong, pull, "0".repeat(64), self.app_admin()] {
                    answers.push(self.send(&machine, message, "b1", 1, &token).await);
                }
                answers
            }
            How::Replayed => {
                let first = self.say(&machine, message, "b1", 1).await;
                if self.seen(&machine).await.state.outcome().is_none() {
                    self.apply(&machine, Event::Cancelled).await;
                }
                let ended = self.seen(&machine).await;
                let again = self.say(&machine, message, "b1", 1).await;
                return (vec![first, again], ended, self.seen(&machine).await);
            }
            How::Stale => vec![self.say(&machine, message, "b0", 1).await],
            How::OfAnotherAttempt => {
                let other = self.job_in(Phase::AwaitingHeard, false).await;
                let token = match message {
                    Message::Hello => self.app.keys.attempt_token(&other.attempt),
                    _ => session(&other, "b1"),
                };
                let others = self.seen(&other).await;
                let answer = self.send(&machine, message, "b1", 1, &token).await;
                assert_eq!(self.seen(&other).await, others);
                vec![answer]
            }
        };
        let seen = self.seen(&machine).await;
        (answers, before, seen)
    }

    fn app_admin(&self) -> String {
        std::fs::read_to_string(self.app.settings.data_dir.join("admin-token")).unwrap()
    }
}

/// Each machine's boots have tokens of their own.
fn session(machine: &Machine, boot: &str) -> String {
    session_token(&format!("{}-{boot}", machine.serial))
}

fn body(machine: &Machine, message: Message, boot: &str, seq: u64) -> (&'static str, Value) {
    let dmi = json!({"serial": machine.serial, "uuid": ""});
    match message {
        Message::Hello => {
            let session = session_sha256(&format!("{}-{boot}", machine.serial));
            let body = json!({
                "boot_id": boot, "dmi": dmi, "version": "test", "session_sha256": session
            });
            ("hello", body)
        }
        Message::Recipe => ("recipe", Value::Null),
        Message::Permit => {
            let disk = json!({"name": "vda", "serial": "DISK1", "size_bytes": 1 << 30});
            ("permit", json!({"boot_id": boot, "dmi": dmi, "disk": disk, "found": []}))
        }
        Message::Progress => ("progress", json!({"seq": seq, "step": "s", "message": "m"})),
        Message::Log => ("log", json!({"seq": seq, "step": "s", "lines": ["line"]})),
        Message::Success => ("result", json!({"status": "success"})),
        Message::Failure => (
            "result",
            json!({"status": "failed", "failed_step": "partition.service", "reason": "no disk"}),
        ),
    }
}

/// The expected statuses of a cell, and the expected state after it.
fn expected(message: Message, phase: Phase, how: How, before: &Seen) -> (Vec<u16>, Seen) {
    let (status, effect) = rule(message, phase);
    match how {
        How::Once => (vec![status], after(before, effect)),
        How::Lost | How::Duplicated => {
            // The second gets the same status as the first and has no further effect. A failure ends the job; after
            // that only the same failure is accepted.
            (vec![status, status], after(before, effect))
        }
        How::Reordered => {
            let mut wanted = before.clone();
            let is_open_and_heard = phase.is_heard() && !phase.is_over();
            match message {
                Message::Progress | Message::Log if is_open_and_heard => {
                    // The later one counts, and the earlier one adds nothing.
                    if message == Message::Progress {
                        wanted.progress_seq = Some(2);
                    } else {
                        wanted.log_lines = 1;
                    }
                }
                _ => {
                    if is_open_and_heard {
                        wanted.log_lines = 1;
                    }
                    wanted = after(&wanted, effect);
                }
            }
            (vec![status], wanted)
        }
        How::Forged => (vec![401; 4], before.clone()),
        How::Replayed => {
            // `before` is the ended job here: nothing may change.
            let again = match (message, before.state.outcome()) {
                (Message::Success, Some(Outcome::Succeeded)) if phase.is_heard() => 204,
                (Message::Failure, Some(Outcome::Failed(why)))
                    if phase.is_heard() && why.step == "partition.service" =>
                {
                    204
                }
                (Message::Hello, _) => 410,
                _ if phase.is_heard() => 410,
                _ => 401,
            };
            (vec![status, again], before.clone())
        }
        How::Stale if !phase.is_heard() => {
            // There was no boot before: the hello is the first one, from boot b0.
            let mut wanted = after(before, effect);
            if effect == Effect::Session {
                wanted.boot_id = Some("b0".into());
            }
            (vec![status], wanted)
        }
        How::Stale if phase.is_over() => (vec![410], before.clone()),
        How::Stale => (vec![410], after(before, Effect::Fails("node.two-sessions"))),
        How::OfAnotherAttempt => (vec![401], before.clone()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_has_a_wrong_effect_in_any_state_however_it_comes() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let (mut cells, mut wrong) = (0, Vec::new());
    for message in MESSAGES {
        for phase in PHASES {
            for how in WAYS {
                let (answers, before, seen) = world.play(message, phase, how).await;
                let (statuses, wanted) = expected(message, phase, how, &before);
                let (seen, wanted) = (without_words(seen), without_words(wanted));
                cells += 1;
                println!("{message:?} x {phase:?} x {how:?}: {answers:?}");
                if answers != statuses || seen != wanted {
                    wrong.push(format!(
                        "{message:?} x {phase:?} x {how:?}: answered {answers:?}, wanted \
                         {statuses:?}\n  is     {seen:?}\n  wanted {wanted:?}"
                    ));
                }
            }
        }
    }
    println!("message matrix: {cells} cells, {} wrong effects", wrong.len());
    assert_eq!(cells, 7 * 14 * 8);
    assert!(wrong.is_empty(), "{} of {cells}:\n{}", wrong.len(), wrong.join("\n"));
}

async fn world(dir: &std::path::Path) -> World {
    let bmc = bmc::Bmc::start("SN1", bmc::Play::Dead).await;
    let (app, _job) = with_job(dir, &bmc).await;
    let router = http::router(app.clone(), &crate::settings::listeners::Listener::ALL)
        .layer(axum::middleware::from_fn(about::as_told));
    World { app, router, jobs: 0 }
}

/// How many events of this kind the job has.
async fn told(world: &World, machine: &Machine, kind: &str) -> usize {
    let events = world.app.store.events(&machine.job, 0, 1000).await.unwrap();
    events.iter().filter(|event| event.kind == kind).count()
}

async fn failed_step(world: &World, machine: &Machine) -> Option<String> {
    match world.app.store.job(&machine.job).await.unwrap().state.outcome() {
        Some(Outcome::Failed(why)) => Some(why.step.clone()),
        Some(Outcome::Succeeded) | None => None,
    }
}

/// A hello with the token of the task medium, as anyone who has read the medium can send it.
async fn hello(world: &World, machine: &Machine, boot: &str, session: &Value) -> (u16, Value) {
    let (_, mut body) = body(machine, Message::Hello, boot, 0);
    body["session_sha256"] = session.clone();
    let request = Request::post(format!("/api/v1/node/attempts/{}/hello", machine.attempt))
        .header(
            "authorization",
            format!("Bearer {}", world.app.keys.attempt_token(&machine.attempt)),
        )
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = world.router.clone().oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_boot_keeps_its_first_session_and_another_one_is_told_once() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::AwaitingHeard, false).await;
    for _ in 0..3 {
        let (status, problem) = hello(&world, &machine, "b1", &json!("0".repeat(64))).await;
        assert_eq!((status, &problem["type"]), (409, &json!("urn:shoal:problem:session-taken")));
    }
    assert_eq!(told(&world, &machine, "hello_refused").await, 1);
    assert_eq!(world.say(&machine, Message::Permit, "b1", 1).await, 200);
}

#[tokio::test]
async fn two_that_speak_at_once_end_the_attempt_whoever_of_them_was_first() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::AwaitingHeard, false).await;
    assert_eq!(world.say(&machine, Message::Hello, "thief", 0).await, 204);
    assert_eq!(told(&world, &machine, "session_replaced").await, 1);
    // The real machine continues, and its next message is rejected.
    assert_eq!(world.say(&machine, Message::Permit, "b1", 1).await, 410);
    assert_eq!(failed_step(&world, &machine).await.as_deref(), Some("node.two-sessions"));
    assert_eq!(world.say(&machine, Message::Permit, "thief", 1).await, 410);
    assert!(world.app.store.job(&machine.job).await.unwrap().permit.is_none());
}

#[tokio::test]
async fn another_boot_ends_a_write_and_a_boot_that_did_not_restart_is_told() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::Writing, false).await;
    assert_eq!(world.say(&machine, Message::Hello, "b2", 0).await, 410);
    assert_eq!(failed_step(&world, &machine).await.as_deref(), Some("node.restarted"));
    assert_eq!(told(&world, &machine, "session_refused").await, 0);
    for _ in 0..2 {
        assert_eq!(world.say(&machine, Message::Progress, "b1", 5).await, 410);
    }
    assert_eq!(told(&world, &machine, "session_refused").await, 1);
}

/// The job's `needs_attention`, and the texts of its events.
async fn told_to_a_person(world: &World, machine: &Machine) -> (String, String) {
    let path = format!("/api/v1/jobs/{}", machine.job);
    let request = Request::get(path)
        .header("authorization", format!("Bearer {}", world.app_admin()))
        .body(Body::empty())
        .unwrap();
    let answer = world.router.clone().oneshot(request).await.unwrap();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    let job: Value = serde_json::from_slice(&bytes).unwrap();
    let events = world.app.store.events(&machine.job, 0, 1000).await.unwrap();
    let texts: Vec<String> = events.into_iter().map(|event| event.message).collect();
    (job["needs_attention"].as_str().unwrap_or_default().to_owned(), texts.join("\n"))
}

const CHANGE_THEM: &str =
    "the secrets of this recipe may have been read by somebody else: change them";

#[tokio::test]
async fn a_hello_gives_no_secret_and_a_second_one_is_put_before_a_person() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::Awaiting, false).await;
    // A thief who read the task medium sends hello before the machine.
    assert_eq!(world.say(&machine, Message::Hello, "thief", 0).await, 204);
    assert_eq!(world.say(&machine, Message::Recipe, "thief", 0).await, 409);
    assert_eq!(world.say(&machine, Message::Hello, "b1", 0).await, 204);
    assert_eq!(world.say(&machine, Message::Recipe, "b1", 0).await, 409);
    assert_eq!(world.say(&machine, Message::Permit, "b1", 0).await, 200);
    assert_eq!(world.say(&machine, Message::Recipe, "b1", 0).await, 200);
    assert_eq!(world.say(&machine, Message::Success, "b1", 0).await, 204);
    let (attention, events) = told_to_a_person(&world, &machine).await;
    for boot in ["boot thief", "boot b1"] {
        assert!(attention.contains(boot), "{boot}: {attention}");
    }
    assert!(attention.contains("neither with the recipe's secrets"), "{attention}");
    assert!(!attention.contains(CHANGE_THEM), "{attention}");
    assert!(events.contains("the recipe's secrets went to"), "{events}");
}

#[tokio::test]
async fn the_machines_hello_after_another_ones_permit_says_to_change_the_secrets() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    for is_over in [false, true] {
        let machine = world.job_in(Phase::Awaiting, false).await;
        // The thief reports the same identity as the machine.
        for (message, status) in
            [(Message::Hello, 204), (Message::Permit, 200), (Message::Recipe, 200)]
        {
            assert_eq!(world.say(&machine, message, "thief", 0).await, status);
        }
        if is_over {
            assert_eq!(world.say(&machine, Message::Success, "thief", 0).await, 204);
            assert_eq!(told_to_a_person(&world, &machine).await.0, "");
        }
        for _ in 0..2 {
            assert_eq!(world.say(&machine, Message::Hello, "b1", 0).await, 410);
        }
        let (attention, _) = told_to_a_person(&world, &machine).await;
        for words in ["boot thief", "boot b1", CHANGE_THEM] {
            assert!(attention.contains(words), "over: {is_over}: no {words:?} in {attention}");
        }
        assert_eq!(failed_step(&world, &machine).await.is_some(), !is_over);
    }
}

#[tokio::test]
async fn two_that_speak_at_once_are_both_named() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::AwaitingHeard, false).await;
    assert_eq!(world.say(&machine, Message::Hello, "thief", 0).await, 204);
    assert_eq!(world.say(&machine, Message::Log, "b1", 1).await, 410);
    let (attention, _) = told_to_a_person(&world, &machine).await;
    assert!(attention.contains("boot b1") && attention.contains("boot thief"), "{attention}");
    assert!(!attention.contains(CHANGE_THEM), "{attention}");
}

#[tokio::test]
async fn a_dispatcher_without_sessions_ends_its_attempt_with_what_to_do() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::Awaiting, false).await;
    let (status, problem) = hello(&world, &machine, "b1", &json!("not a hash")).await;
    assert_eq!((status, &problem["type"]), (400, &json!("urn:shoal:problem:session")));
    assert_eq!(failed_step(&world, &machine).await, None);
    let (status, problem) = hello(&world, &machine, "b1", &json!("")).await;
    assert_eq!(status, 426);
    assert!(problem["detail"].as_str().unwrap().contains("build maintenance.iso anew"));
    let step = failed_step(&world, &machine).await;
    assert_eq!(step.as_deref(), Some("node.dispatcher-too-old"));
    assert_eq!(hello(&world, &machine, "b1", &json!("")).await.0, 410);
}

#[tokio::test]
async fn a_database_has_no_token_of_a_session() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::Writing, false).await;
    let token = session(&machine, "b1");
    let data = world.app.settings.data_dir.clone();
    for name in ["shoal.sqlite", "shoal.sqlite-wal"] {
        let bytes = std::fs::read(data.join(name)).unwrap();
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()), "{name}");
    }
}

#[tokio::test]
async fn a_number_that_the_store_cannot_hold_is_the_machines_mistake() {
    let dir = temp_dir();
    let mut world = world(dir.path()).await;
    let machine = world.job_in(Phase::Writing, false).await;
    for message in [Message::Progress, Message::Log] {
        for (seq, expected) in [(u64::MAX, 400), (1 << 63, 400), ((1 << 63) - 1, 204)] {
            assert_eq!(
                world.say(&machine, message, "b1", seq).await,
                expected,
                "{message:?} {seq}"
            );
        }
    }
}
