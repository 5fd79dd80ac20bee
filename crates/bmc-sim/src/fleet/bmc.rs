// SPDX-License-Identifier: AGPL-3.0-or-later
//! One BMC: its state, and its resources as its profile and its fault require. Actions on it are in
//! `actions`. No network here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fault::Fault;
use super::firmware::Firmware;
use super::profile::quirk::{Member, Quirk};
use super::profile::{Insert, Profile, Takes, WrittenTo};
use super::reply::{Manner, Reply, Request};
use super::resources::{self, Boot, Paths, Shown, Who};
use super::{Shared, wire};

/// Number of polls until a slow task is finished.
const TASK_POLLS: u32 = 8;
/// Number of failures of a temporary fault.
const PASSING: u32 = 2;
/// Size of a response that no client should read to its end.
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
    pub(super) before: Before,
    pub(super) is_on: bool,
    /// When the machine was switched on last.
    pub(super) on_since: Instant,
    /// Since when remote media are enabled, for a BMC that has them disabled at first.
    pub(super) enabled_at: Option<Instant>,
    /// By slot: the image that was in it before.
    pub(super) former: Vec<Option<String>>,
    pub(super) boot: Boot,
    pub(super) media: Vec<Option<Medium>>,
    /// By id, with the time of the last use.
    pub(super) sessions: BTreeMap<String, Instant>,
    /// A counter for everything that needs a number.
    pub(super) count: u32,
    pub(super) logins_refused: u32,
    /// How often a temporary fault has struck.
    pub(super) struck: u32,
    pub(super) boots: u32,
    pub(super) away_until: Option<Instant>,
    pub(super) busy_until: Option<Instant>,
    pub(super) generation: u32,
    pub(super) task_polls: u32,
    pub(super) firmware: Firmware,
    pub(super) node: Option<AbortHandle>,
}

/// The content of a slot.
#[derive(Debug, Clone)]
pub struct Medium {
    pub url: String,
    /// The content, on a BMC that downloads its media.
    pub copy: Option<Arc<Vec<u8>>>,
    /// When it was inserted.
    pub since: Instant,
}

/// The state of a BMC before it was used.
pub(super) struct Before {
    pub(super) is_on: bool,
    pub(super) boot: Boot,
    /// By slot: the image that somebody else has inserted, or that the slot falsely shows.
    pub(super) media: Vec<Option<String>>,
}

/// The image that an empty slot falsely shows.
const STALE: &str = "http://192.0.2.9/gone.iso";
/// The image that somebody else has inserted.
const FOREIGN: &str = "http://198.51.100.9/live/rescue.iso";

impl Medium {
    pub(crate) fn now(url: String) -> Medium {
        Medium { url, copy: None, since: Instant::now() }
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.url == FOREIGN
    }

    /// Whether it was there before the job, truly or falsely.
    pub(super) fn is_older(&self) -> bool {
        self.url == FOREIGN || self.url == STALE
    }
}

impl Bmc {
    pub fn new(serial: String, uuid: String, profile: &'static Profile, fault: Fault) -> Bmc {
        let stale = Medium::now(STALE.into());
        let is_stale = matches!(fault, Fault::StaleInserted | Fault::StaleEjected);
        let medium = is_stale.then_some(stale);
        let has_http_boot = profile.has(Quirk::HttpBoot);
        let stale = medium.as_ref().filter(|_| has_http_boot);
        let http_uri = stale.map(|medium| medium.url.clone()).unwrap_or_default();
        let mut boot = Boot { http_uri, ..Boot::none() };
        if let Some([enabled, target, mode]) = profile.override_before() {
            boot =
                Boot { enabled: enabled.into(), target: target.into(), mode: mode.into(), ..boot };
        }
        let mut media = vec![medium.filter(|_| !has_http_boot); profile.slots.len()];
        let foreign = (0..media.len()).find(|slot| profile.has(Quirk::ForeignMedium(*slot)));
        if let Some(slot) = foreign {
            media[slot] = Some(Medium::now(FOREIGN.into()));
        }
        let is_on = !profile.has(Quirk::OffAtFirst);
        let urls = media.iter().map(|medium| medium.as_ref().map(|medium| medium.url.clone()));
        let state = State {
            before: Before { is_on, boot: boot.clone(), media: urls.collect() },
            is_on,
            on_since: Instant::now(),
            enabled_at: None,
            former: vec![None; media.len()],
            boot,
            media,
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

    /// Stores the bytes of a downloaded medium.
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
        state.end_idle_sessions(shared);
        match self.fault {
            Fault::Hang => return Reply::done().in_manner(Manner::Never),
            Fault::Unavailable => return unavailable(),
            Fault::RetryAfterForever => return unavailable().with("retry-after", "86400"),
            _ => {}
        }
        let mut reply = match (request.method.as_str(), request.path.as_str()) {
            _ if let Some(redirect) = wire::redirect(self.profile, request) => redirect,
            ("GET", resources::ROOT) => Reply::ok(&resources::root(&self.profile.told)),
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

    fn route(
        self: &Arc<Self>,
        state: &mut State,
        shared: &Arc<Shared>,
        request: &Request,
    ) -> Reply {
        if let Some(reply) = self.update(state, shared, request) {
            return reply;
        }
        if let Some(reply) = self.beside(state, shared, request) {
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
            "PATCH" if path == paths.system && self.ignores_the_system() => Reply::done(),
            "PATCH" => match slot_of("") {
                Some(slot) => self.patch_slot(state, shared, request, slot),
                None => Reply::refused(405, "OperationNotAllowed", "this cannot be changed"),
            },
            "POST" if path == paths.reset => self.reset(state, shared, &request.body),
            "POST" if path == paths.enable_media && self.profile.has(Quirk::MediaDisabled) => {
                Bmc::enable_media(state, &request.body)
            }
            "POST" if self.profile.insert != Insert::Patch => {
                let [insert, eject] = resources::action_suffixes(self.profile);
                if let Some(slot) = slot_of(insert) {
                    self.insert(state, shared, &request.body, slot)
                } else if let Some(slot) = slot_of(eject) {
                    self.eject(state, shared, &request.body, slot)
                } else {
                    Reply::not_found()
                }
            }
            "POST" => Reply::not_found(),
            "DELETE" => Bmc::log_out(state, path),
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
            let beside = self.system_beside();
            let stranger = shared.stranger();
            Reply::ok(&resources::systems(self.fault, paths, beside.as_deref(), &stranger))
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
            Reply::ok(&self.managers(paths))
        } else if path == paths.manager {
            Reply::ok(&resources::manager(self.profile, paths, self.has_media(state, shared)))
        } else if path == paths.media {
            let is_empty = self.fault == Fault::NoSlots || !self.has_media(state, shared);
            let slots = if is_empty { &[] } else { paths.slots.as_slice() };
            Reply::ok(&resources::collection(path, slots))
        } else if let Some(number) = paths.slots.iter().position(|slot| slot == path) {
            match self.failing(Member::LocalSlots) {
                Some(_) if self.profile.slots[number].takes != Takes::Urls && !state.is_on => {
                    Reply::not_found()
                }
                _ => {
                    let shown = self.shown(state, shared, number);
                    Reply::ok(&resources::slot(self.profile, path, number, &shown))
                        .with("etag", etag)
                }
            }
        } else if path.starts_with(resources::TASKS) {
            self.task(state, path)
        } else {
            Reply::not_found()
        }
    }

    /// The present content of a slot.
    fn shown<'a>(&self, state: &'a State, shared: &Shared, number: usize) -> Shown<'a> {
        let image = state.media[number].as_ref().map(|medium| medium.url.as_str());
        let former = state.former[number].as_deref();
        Shown {
            image,
            former: former.filter(|_| self.profile.has(Quirk::ImageStays)),
            offers_eject: self.offers_eject(state, shared, number),
            offers_insert: image.is_none() || self.profile.eject_appears_after().is_none(),
        }
    }

    /// Whether the system accepts a change of the override without effect.
    fn ignores_the_system(&self) -> bool {
        matches!(self.profile.boot.written_to, WrittenTo::SettingsSilently(_))
    }

    /// The response for the systems, if the fault is in them.
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
    /// Whether a fault that occurs `times` times occurs now.
    pub(super) fn strikes(&mut self, times: u32) -> bool {
        self.struck += 1;
        self.struck <= times
    }

    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.count)
    }
}

fn unavailable() -> Reply {
    Reply::refused(503, "ServiceTemporarilyUnavailable", "come back later")
}

/// A date that is already past when it is read, as with clocks that differ.
fn http_date_soon() -> String {
    "Wed, 21 Oct 2015 07:28:00 GMT".to_owned()
}
