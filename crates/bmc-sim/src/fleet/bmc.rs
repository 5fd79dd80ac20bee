// SPDX-License-Identifier: AGPL-3.0-or-later
//! One BMC: its state, and how it answers, by its profile and its fault. No network here.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fault::Fault;
use super::node;
use super::profile::{Eject, Insert, Profile};
use super::reply::{Manner, Reply, Request};
use super::resources::{self, Boot, Paths, Who};
use super::{PASSWORD, Shared, USERNAME};

/// Sessions that a BMC has at once; some have four, most 8 to 16.
const SESSIONS_MAX: usize = 8;
/// A BMC's restart, in the time of real ones.
const RESTART: Duration = Duration::from_secs(60);
/// How long an insert keeps a slow BMC busy, likewise.
const INSERT_WORK: Duration = Duration::from_secs(5);
/// Looks at a slow task until it is over.
const TASK_POLLS: u32 = 8;
/// Refusals of a fault that goes away.
const PASSING: u32 = 2;
/// An answer that nobody should read to its end.
const HUGE_BYTES: usize = 16 << 20;
const DEEP_LEVELS: usize = 100_000;

/// A BMC and its machine.
pub struct Bmc {
    pub serial: String,
    pub uuid: String,
    pub profile: &'static Profile,
    pub fault: Fault,
    state: Mutex<State>,
}

struct State {
    is_on: bool,
    boot: Boot,
    media: Vec<Option<Medium>>,
    sessions: BTreeSet<String>,
    /// Of everything that had a number until now.
    count: u32,
    logins_refused: u32,
    /// How often a passing fault struck.
    struck: u32,
    boots: u32,
    away_until: Option<Instant>,
    busy_until: Option<Instant>,
    generation: u32,
    task_polls: u32,
    node: Option<AbortHandle>,
}

/// What is in a slot.
#[derive(Debug, Clone)]
pub struct Medium {
    pub url: String,
    /// Of a BMC that downloads what it is given.
    pub copy: Option<Arc<Vec<u8>>>,
}

/// What is left of a BMC when its job is over.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    pub sessions: usize,
    pub logins_refused: u32,
    pub media: usize,
}

impl Bmc {
    pub fn new(serial: String, uuid: String, profile: &'static Profile, fault: Fault) -> Bmc {
        let stale = Medium { url: "http://192.0.2.9/gone.iso".into(), copy: None };
        let medium = (fault == Fault::StaleInserted).then_some(stale);
        let state = State {
            is_on: true,
            boot: none(),
            media: vec![medium; profile.slots.len()],
            sessions: BTreeSet::new(),
            count: 0,
            logins_refused: 0,
            struck: 0,
            boots: 0,
            away_until: None,
            busy_until: None,
            generation: 0,
            task_polls: 0,
            node: None,
        };
        Bmc { serial, uuid, profile, fault, state: Mutex::new(state) }
    }

    pub fn left(&self) -> Left {
        let state = self.state();
        Left {
            sessions: state.sessions.len(),
            logins_refused: state.logins_refused,
            media: state.media.iter().flatten().count(),
        }
    }

    /// Keeps the bytes of a medium that was downloaded.
    pub fn keep_copy(&self, slot: usize, url: &str, bytes: Vec<u8>) {
        if let Some(medium) = &mut self.state().media[slot]
            && medium.url == url
        {
            medium.copy = Some(Arc::new(bytes));
        }
    }

    pub fn answer(self: &Arc<Self>, shared: &Arc<Shared>, request: &Request) -> Reply {
        let mut state = self.state();
        if state.away_until.is_some_and(|until| Instant::now() < until) {
            return Reply::done().in_manner(Manner::Dropped);
        }
        match self.fault {
            Fault::Hang => return Reply::done().in_manner(Manner::Never),
            Fault::Unavailable => return unavailable(),
            Fault::RetryAfterForever => return unavailable().with("retry-after", "86400"),
            _ => {}
        }
        let mut reply = match (request.method.as_str(), request.path.as_str()) {
            ("GET", resources::ROOT) => Reply::ok(&resources::root()),
            ("POST", resources::SESSIONS) => self.log_in(&mut state, request),
            _ => match self.refusal_of_session(&mut state, request) {
                Some(refusal) => refusal,
                None => self.route(&mut state, shared, request),
            },
        };
        match self.fault {
            Fault::Drip => reply.manner = Manner::Drip,
            Fault::HalfClose => reply.manner = Manner::Cut,
            _ => {}
        }
        reply
    }

    fn log_in(&self, state: &mut State, request: &Request) -> Reply {
        let is_known = request.body["UserName"] == USERNAME && request.body["Password"] == PASSWORD;
        if !is_known || self.fault == Fault::BadLogin {
            state.logins_refused += 1;
            return Reply::refused(401, "NoValidSession", "the user or the password is wrong");
        }
        let is_full = match self.fault {
            Fault::MaxSessions => true,
            Fault::SessionsBusy => state.strikes(PASSING),
            _ => state.sessions.len() >= SESSIONS_MAX,
        };
        if is_full {
            return Reply::refused(503, "SessionLimitExceeded", "there are too many sessions");
        }
        state.count += 1;
        let id = format!("s{}", state.count);
        state.sessions.insert(id.clone());
        let location = format!("{}/{id}", resources::SESSIONS);
        Reply::json(201, &json!({"@odata.id": location, "Id": id}))
            .with("x-auth-token", id)
            .with("location", location)
    }

    fn refusal_of_session(&self, state: &mut State, request: &Request) -> Option<Reply> {
        let refused = || Reply::refused(401, "NoValidSession", "there is no such session");
        let is_known = request.token.as_ref().is_some_and(|token| state.sessions.contains(token));
        let is_delete = request.method == "DELETE";
        if !is_known || (self.fault == Fault::UnauthorizedStorm && !is_delete) {
            return Some(refused());
        }
        if self.fault == Fault::SessionLost && !is_delete && state.strikes(1) {
            state.sessions.clear();
            return Some(refused());
        }
        None
    }

    fn route(
        self: &Arc<Self>,
        state: &mut State,
        shared: &Arc<Shared>,
        request: &Request,
    ) -> Reply {
        let paths = Paths::of(self.profile, state.generation);
        let path = request.path.as_str();
        let slot_of = |action: &str| {
            let slot = path.strip_suffix(action)?;
            paths.slots.iter().position(|known| known == slot)
        };
        match request.method.as_str() {
            "GET" => self.get(state, shared, &paths, path),
            "PATCH" if path == paths.boot => self.patch_boot(state, shared, request),
            "PATCH" => match slot_of("") {
                Some(slot) => self.patch_slot(state, request, slot),
                None => Reply::refused(405, "OperationNotAllowed", "this cannot be changed"),
            },
            "POST" if path == paths.reset => self.reset(state, shared, &request.body),
            "POST" => {
                if let Some(slot) = slot_of("/Actions/VirtualMedia.InsertMedia") {
                    self.insert(state, shared, &request.body, slot)
                } else if let Some(slot) = slot_of("/Actions/VirtualMedia.EjectMedia") {
                    self.eject(state, shared, &request.body, slot)
                } else {
                    Reply::not_found()
                }
            }
            "DELETE" => {
                let id = path.rsplit('/').next().unwrap_or_default();
                if state.sessions.remove(id) { Reply::done() } else { Reply::not_found() }
            }
            _ => Reply::refused(405, "OperationNotAllowed", "there is no such method"),
        }
    }

    fn get(&self, state: &mut State, shared: &Shared, paths: &Paths, path: &str) -> Reply {
        if path == resources::SYSTEMS
            && let Some(reply) = self.broken_systems(state, shared)
        {
            return reply;
        }
        let etag = state.etag();
        if path == resources::SYSTEMS {
            Reply::ok(&resources::systems(self.fault, paths, &shared.stranger()))
        } else if path == paths.system || path == paths.boot {
            let serial = match self.fault {
                Fault::WrongMachine => "ANOTHER",
                _ => &self.serial,
            };
            let who = Who { serial, uuid: &self.uuid };
            let body = resources::system(self.profile, paths, &who, state.is_on, &state.boot);
            let reply = Reply::ok(&body);
            if self.profile.boot.needs_etag { reply.with("etag", etag) } else { reply }
        } else if path == resources::MANAGERS {
            Reply::ok(&resources::collection(path, std::slice::from_ref(&paths.manager)))
        } else if path == paths.manager {
            Reply::ok(&resources::manager(self.profile, paths))
        } else if path == paths.media {
            let slots = if self.fault == Fault::NoSlots { &[] } else { paths.slots.as_slice() };
            Reply::ok(&resources::collection(path, slots))
        } else if let Some(number) = paths.slots.iter().position(|slot| slot == path) {
            let image = state.media[number].as_ref().map(|medium| medium.url.as_str());
            Reply::ok(&resources::slot(self.profile, path, number, image)).with("etag", etag)
        } else if path.starts_with(resources::TASKS) {
            self.task(state, path)
        } else {
            Reply::not_found()
        }
    }

    /// The systems as a BMC shows them that is broken there.
    fn broken_systems(&self, state: &mut State, shared: &Shared) -> Option<Reply> {
        let wait = match self.fault {
            Fault::RetryAfterSeconds => "1".to_owned(),
            Fault::RetryAfterDate => http_date_soon(),
            Fault::RetryAfterNonsense => "soon; -7".to_owned(),
            Fault::Redirect => {
                let there = format!("{}{}", shared.stranger(), resources::SYSTEMS);
                return Some(Reply { status: 302, ..Reply::done() }.with("location", there));
            }
            Fault::HugeJson => {
                let text = format!("{{\"Members\": [], \"x\": \"{}\"}}", "x".repeat(HUGE_BYTES));
                return Some(Reply::text(text.into_bytes()));
            }
            Fault::DeepJson => return Some(Reply::text(b"[".repeat(DEEP_LEVELS))),
            Fault::NotJson => return Some(Reply::text(b"<html>Welcome".to_vec())),
            Fault::RebootAtDiscover if state.strikes(1) => {
                return Some(self.restart(state, shared));
            }
            _ => return None,
        };
        state.strikes(PASSING).then(|| unavailable().with("retry-after", wait))
    }

    fn task(&self, state: &mut State, path: &str) -> Reply {
        if self.fault == Fault::TaskVanish {
            return Reply::not_found();
        }
        state.task_polls += 1;
        let polls = if self.fault == Fault::TaskSlow { TASK_POLLS } else { 1 };
        let (word, message) = match self.fault {
            _ if state.task_polls < polls => ("Running", "under way"),
            Fault::TaskFail => ("Exception", "the image cannot be mounted"),
            _ => ("Completed", "done"),
        };
        Reply::ok(&json!({
            "@odata.id": path, "TaskState": word, "Messages": [{"Message": message}],
        }))
    }

    fn insert(&self, state: &mut State, shared: &Shared, body: &Value, slot: usize) -> Reply {
        let Some(url) = body["Image"].as_str().map(str::to_owned) else {
            return Reply::refused(400, "PropertyMissing", "Image is needed");
        };
        if let Insert::Action { refuses, demands } = self.profile.insert {
            if let Some(name) = refuses.iter().find(|name| !body[**name].is_null()) {
                return Reply::refused(400, "PropertyUnknown", name);
            }
            if let Some(name) = demands.iter().find(|name| body[**name].is_null()) {
                return Reply::refused(400, "PropertyMissing", name);
            }
        }
        if !self.profile.slots[slot].is_remote {
            return Reply::refused(400, "ActionNotSupported", "this slot is for local media");
        }
        if state.media[slot].is_some() {
            return Reply::refused(409, "ResourceInUse", "there is a medium in this slot");
        }
        let refusal = match self.fault {
            Fault::HangInsert => Reply::done().in_manner(Manner::Never),
            Fault::LieInsert => Reply::done(),
            Fault::NoLicence => Reply::refused(403, "InsufficientPrivilege", "needs a licence"),
            Fault::InsertRefused => Reply::refused(500, "InternalError", "cannot mount"),
            Fault::InsertBusy if state.busy_until.is_some_and(|until| Instant::now() < until) => {
                Reply::refused(400, "ResourceInUse", "still mounting")
            }
            Fault::TaskFail => state.task(),
            Fault::RebootAtInsert if state.strikes(1) => self.restart(state, shared),
            Fault::IdsChange if state.strikes(1) => {
                state.generation += 1;
                self.restart(state, shared)
            }
            _ => {
                state.busy_until = Some(Instant::now() + shared.scaled(INSERT_WORK));
                return self.inserted(state, slot, url);
            }
        };
        refusal
    }

    fn inserted(&self, state: &mut State, slot: usize, url: String) -> Reply {
        state.media[slot] = Some(Medium { url: url.clone(), copy: None });
        state.count += 1;
        let is_task = self.profile.insert == Insert::Task
            || matches!(self.fault, Fault::TaskVanish | Fault::TaskSlow);
        let reply = if is_task { state.task() } else { Reply::done() };
        Reply { prefetch: self.profile.is_prefetching.then_some((slot, url)), ..reply }
    }

    fn eject(&self, state: &mut State, shared: &Shared, body: &Value, slot: usize) -> Reply {
        let is_body_fine = match self.profile.eject {
            Eject::NoBody => body.is_null(),
            Eject::EmptyObject => body.is_object(),
            Eject::Any => true,
        };
        if !is_body_fine {
            return Reply::refused(400, "MalformedJSON", "this is not the body that is wanted");
        }
        match self.fault {
            Fault::EjectFails => return Reply::refused(500, "InternalError", "cannot eject"),
            Fault::LieEject => return Reply::done(),
            Fault::EjectRefusedWhileOn if state.is_on => {
                return Reply::refused(409, "ResourceInUse", "the machine is on");
            }
            Fault::RebootAtEject if state.strikes(1) => return self.restart(state, shared),
            _ => {}
        }
        state.media[slot] = None;
        state.count += 1;
        Reply::done()
    }

    /// A slot without actions: an image inserts, null ejects.
    fn patch_slot(&self, state: &mut State, request: &Request, slot: usize) -> Reply {
        if self.profile.insert != Insert::Patch {
            return Reply::refused(405, "OperationNotAllowed", "use the slot's actions");
        }
        if let Some(refusal) = state.refusal_of_etag(request) {
            return refusal;
        }
        state.count += 1;
        match request.body["Image"].as_str() {
            Some(url) => {
                state.media[slot] = Some(Medium { url: url.to_owned(), copy: None });
            }
            None => state.media[slot] = None,
        }
        Reply::done()
    }

    fn patch_boot(&self, state: &mut State, shared: &Shared, request: &Request) -> Reply {
        if self.profile.boot.needs_etag
            && let Some(refusal) = state.refusal_of_etag(request)
        {
            return refusal;
        }
        let asked = &request.body["Boot"];
        let text = |name: &str| asked[name].as_str();
        let (enabled, target) =
            (text("BootSourceOverrideEnabled"), text("BootSourceOverrideTarget"));
        let mode = text("BootSourceOverrideMode");
        if self.profile.boot.needs_all && (enabled.is_none() || target.is_none()) {
            return Reply::refused(400, "PropertyMissing", "the whole boot object is needed");
        }
        if mode.is_some() && !self.profile.boot.is_mode_known {
            return Reply::refused(400, "PropertyUnknown", "BootSourceOverrideMode");
        }
        let is_offered =
            |target: &str| target == "None" || self.profile.boot.targets.contains(&target);
        if target.is_some_and(|target| !is_offered(target)) {
            return Reply::refused(400, "PropertyValueNotInList", "BootSourceOverrideTarget");
        }
        match self.fault {
            Fault::LieBoot => return Reply::done(),
            Fault::BootRefused => return Reply::refused(500, "InternalError", "cannot set"),
            _ => {}
        }
        let set = |field: &mut String, value: Option<&str>| {
            if let Some(value) = value {
                value.clone_into(field);
            }
        };
        set(&mut state.boot.enabled, enabled);
        set(&mut state.boot.target, target);
        set(&mut state.boot.mode, mode);
        state.count += 1;
        if self.fault == Fault::RebootAtOverride && state.strikes(1) {
            return self.restart(state, shared);
        }
        Reply::done()
    }

    fn reset(self: &Arc<Self>, state: &mut State, shared: &Arc<Shared>, body: &Value) -> Reply {
        let kind = body["ResetType"].as_str().unwrap_or_default();
        if !self.profile.resets.contains(&kind) {
            return Reply::refused(400, "ActionParameterNotSupported", "ResetType");
        }
        match self.fault {
            Fault::ResetRefused => return Reply::refused(500, "InternalError", "cannot reset"),
            Fault::LieReset => return Reply::done(),
            Fault::PowerStuckOn if kind != "On" => return Reply::done(),
            Fault::StaysOff if state.boots > 0 && !state.is_on => return Reply::done(),
            _ => {}
        }
        match kind {
            "On" | "ForceOn" if state.is_on => {
                return Reply::refused(409, "ResourceInUse", "the machine is on");
            }
            "On" | "ForceOn" => self.power_on(state, shared),
            "ForceRestart" => {
                state.power_off();
                self.power_on(state, shared);
            }
            "PushPowerButton" if !state.is_on => self.power_on(state, shared),
            _ => state.power_off(),
        }
        state.count += 1;
        if self.fault == Fault::RebootAtReset && state.is_on && state.strikes(1) {
            // The machine goes on meanwhile, with its media.
            let media = state.media.clone();
            let reply = self.restart(state, shared);
            state.media = media;
            return reply;
        }
        Reply::done()
    }

    fn power_on(self: &Arc<Self>, state: &mut State, shared: &Arc<Shared>) {
        state.is_on = true;
        let is_from_cd = state.boot.enabled != "Disabled"
            && matches!(state.boot.target.as_str(), "Cd" | "UsbCd")
            && self.fault != Fault::OverrideIgnored;
        if state.boot.enabled == "Once" && self.fault != Fault::OverrideNotConsumed {
            state.boot = none();
        }
        if self.fault == Fault::DropsMediaAtReset {
            state.media.fill(None);
        }
        let is_bootable = |medium: &Option<Medium>| {
            medium.as_ref().is_some_and(|m| m.url.contains("maintenance"))
        };
        let bootable = match self.profile.is_first_slot_only {
            true => state.media.first().is_some_and(is_bootable),
            false => state.media.iter().any(is_bootable),
        };
        if is_from_cd && bootable {
            state.boots += 1;
            let boot = node::Boot {
                bmc: self.clone(),
                shared: shared.clone(),
                media: state.media.iter().flatten().cloned().collect(),
                number: state.boots,
            };
            state.node = Some(tokio::spawn(node::live(boot)).abort_handle());
        }
    }

    /// Is gone for a while; what was in its memory is lost, settings are kept.
    fn restart(&self, state: &mut State, shared: &Shared) -> Reply {
        state.away_until = Some(Instant::now() + shared.scaled(RESTART));
        state.sessions.clear();
        state.media.fill(None);
        Reply::done().in_manner(Manner::Dropped)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a fault that goes away after `times` strikes now.
    fn strikes(&mut self, times: u32) -> bool {
        self.struck += 1;
        self.struck <= times
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.count)
    }

    fn refusal_of_etag(&self, request: &Request) -> Option<Reply> {
        match &request.if_match {
            None => Some(Reply::refused(428, "PreconditionRequired", "If-Match is needed")),
            Some(etag) if *etag != self.etag() && etag != "*" => {
                Some(Reply::refused(412, "PreconditionFailed", "it was changed meanwhile"))
            }
            Some(_) => None,
        }
    }

    fn task(&mut self) -> Reply {
        self.count += 1;
        self.task_polls = 0;
        let path = format!("{}/{}", resources::TASKS, self.count);
        Reply::json(202, &json!({"@odata.id": path, "TaskState": "Running"})).with("location", path)
    }

    fn power_off(&mut self) {
        self.is_on = false;
        if let Some(node) = self.node.take() {
            node.abort();
        }
    }
}

fn none() -> Boot {
    Boot { enabled: "Disabled".into(), target: "None".into(), mode: "UEFI".into() }
}

fn unavailable() -> Reply {
    Reply::refused(503, "ServiceTemporarilyUnavailable", "come back later")
}

/// A date that is over when it is read, as clocks differ.
fn http_date_soon() -> String {
    "Wed, 21 Oct 2015 07:28:00 GMT".to_owned()
}
