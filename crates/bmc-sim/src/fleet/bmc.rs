// SPDX-License-Identifier: AGPL-3.0-or-later
//! One BMC: its state, and what it shows, by its profile and its fault. What is done to it is in
//! `actions`. No network here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fault::Fault;
use super::profile::Profile;
use super::reply::{Manner, Reply, Request};
use super::resources::{self, Boot, Paths, Who};
use super::update::Firmware;
use super::{PASSWORD, Shared, USERNAME};

/// Sessions that a BMC has at once; some have four, most 8 to 16.
const SESSIONS_MAX: usize = 8;
/// After so long, in the time of real ones, a BMC ends a session that nobody uses; they have 5 to 30 minutes.
/// A client that was killed cannot do it.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(300);
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

pub(super) struct State {
    pub(super) is_on: bool,
    pub(super) boot: Boot,
    pub(super) media: Vec<Option<Medium>>,
    /// By id, and when each was used last.
    pub(super) sessions: BTreeMap<String, Instant>,
    /// Of everything that had a number until now.
    pub(super) count: u32,
    pub(super) logins_refused: u32,
    /// How often a passing fault struck.
    pub(super) struck: u32,
    pub(super) boots: u32,
    pub(super) away_until: Option<Instant>,
    pub(super) busy_until: Option<Instant>,
    pub(super) generation: u32,
    pub(super) task_polls: u32,
    pub(super) firmware: Firmware,
    pub(super) node: Option<AbortHandle>,
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
        let stale = medium.as_ref().filter(|_| profile.has_http_boot);
        let http_uri = stale.map(|medium| medium.url.clone()).unwrap_or_default();
        let state = State {
            is_on: true,
            boot: Boot { http_uri, ..none() },
            media: vec![medium.filter(|_| !profile.has_http_boot); profile.slots.len()],
            sessions: BTreeMap::new(),
            count: 0,
            logins_refused: 0,
            struck: 0,
            boots: 0,
            away_until: None,
            busy_until: None,
            generation: 0,
            task_polls: 0,
            firmware: Firmware::new(),
            node: None,
        };
        Bmc { serial, uuid, profile, fault, state: Mutex::new(state) }
    }

    pub fn left(&self) -> Left {
        let state = self.state();
        Left {
            sessions: state.sessions.len(),
            logins_refused: state.logins_refused,
            media: state.media.iter().flatten().count()
                + usize::from(!state.boot.http_uri.is_empty()),
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
        let idle_max = shared.scaled(SESSION_IDLE_MAX);
        state.sessions.retain(|_, used| used.elapsed() < idle_max);
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
        state.sessions.insert(id.clone(), Instant::now());
        // Of a length that a search for it in the controller's traces finds nothing else.
        let token = format!("{}-{id}", self.session_secret());
        let location = format!("{}/{id}", resources::SESSIONS);
        Reply::json(201, &json!({"@odata.id": location, "Id": id}))
            .with("x-auth-token", token)
            .with("location", location)
    }

    /// How each token of a session of this BMC begins.
    pub fn session_secret(&self) -> String {
        format!("fleet-session-{}", self.serial)
    }

    fn refusal_of_session(&self, state: &mut State, request: &Request) -> Option<Reply> {
        let refused = || Reply::refused(401, "NoValidSession", "there is no such session");
        let secret = format!("{}-", self.session_secret());
        let id = request.token.as_ref().and_then(|token| token.strip_prefix(&secret));
        let used = id.and_then(|id| state.sessions.get_mut(id));
        let is_known = used.map(|used| *used = Instant::now()).is_some();
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
        if let Some(reply) = self.update(state, shared, request) {
            return reply;
        }
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
                if state.sessions.remove(id).is_some() { Reply::done() } else { Reply::not_found() }
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a fault that goes away after `times` strikes now.
    pub(super) fn strikes(&mut self, times: u32) -> bool {
        self.struck += 1;
        self.struck <= times
    }

    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.count)
    }
}

pub(super) fn none() -> Boot {
    Boot {
        enabled: "Disabled".into(),
        target: "None".into(),
        mode: "UEFI".into(),
        http_uri: String::new(),
    }
}

fn unavailable() -> Reply {
    Reply::refused(503, "ServiceTemporarilyUnavailable", "come back later")
}

/// A date that is over when it is read, as clocks differ.
fn http_date_soon() -> String {
    "Wed, 21 Oct 2015 07:28:00 GMT".to_owned()
}
