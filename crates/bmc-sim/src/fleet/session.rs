// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sessions of one BMC: created, shown in the BMC's way, used, closed, and ended when idle.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::bmc::{Bmc, State};
use super::fault::Fault;
use super::profile::quirk::Location;
use super::reply::{Reply, Request};
use super::resources::SESSIONS;
use super::{PASSWORD, Shared, USERNAME};

/// A BMC ends an unused session after this time on real hardware, where it is 5 to 30 minutes. A client that was killed
/// cannot close its session.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(300);
/// Number of rejected logins of a temporary fault.
const PASSING: u32 = 2;
/// The host in the links of a BMC that knows itself by a name which its clients do not use.
const OTHER_HOST: &str = "https://bmc-42.mgmt.example";

impl State {
    /// Ends the sessions that were unused for too long.
    pub(super) fn end_idle_sessions(&mut self, shared: &Shared) {
        let idle_max = shared.scaled(SESSION_IDLE_MAX);
        self.sessions.retain(|_, used| used.elapsed() < idle_max);
    }
}

impl Bmc {
    pub(super) fn log_in(&self, state: &mut State, request: &Request) -> Reply {
        let is_known = request.body["UserName"] == USERNAME && request.body["Password"] == PASSWORD;
        if !is_known || self.fault == Fault::BadLogin {
            state.logins_refused += 1;
            return Reply::refused(401, "NoValidSession", "the user or the password is wrong");
        }
        let is_full = match self.fault {
            Fault::MaxSessions => true,
            Fault::SessionsBusy => state.strikes(PASSING),
            _ => state.sessions.len() >= self.profile.sessions_max(),
        };
        if is_full {
            return Reply::refused(503, "SessionLimitExceeded", "there are too many sessions");
        }
        state.count += 1;
        let id = format!("s{}", state.count);
        state.sessions.insert(id.clone(), Instant::now());
        // Long enough that a search for it in the controller's traces has no other matches.
        let token = format!("{}-{id}", self.session_secret());
        let path = format!("{SESSIONS}/{id}");
        let reply = Reply::json(201, &json!({"@odata.id": path, "Id": id, "Name": "Session"}))
            .with("x-auth-token", token);
        match self.profile.location() {
            None => reply.with("location", path),
            Some(Location::OtherHost) => reply.with("location", format!("{OTHER_HOST}{path}")),
            Some(Location::Relative) => reply.with("location", format!("Sessions/{id}")),
            Some(Location::BodyOnly) => reply,
        }
    }

    pub(super) fn log_out(state: &mut State, path: &str) -> Reply {
        let id = path.strip_prefix(SESSIONS).and_then(|rest| rest.strip_prefix('/'));
        match id.and_then(|id| state.sessions.remove(id)) {
            Some(_) => Reply::done(),
            None => Reply::not_found(),
        }
    }

    /// The beginning of every session token of this BMC.
    pub fn session_secret(&self) -> String {
        format!("fleet-session-{}", self.serial)
    }

    pub(super) fn refusal_of_session(&self, state: &mut State, request: &Request) -> Option<Reply> {
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
}
