// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a finished job has left at a BMC, except what is allowed to stay: its media, sessions, a changed override, a
//! missing foreign medium, a changed power state, enabled remote media.

use super::bmc::{Bmc, State};
use super::fault::{Expected, Fault, Step};
use super::profile::Plan;

/// What is left at a BMC when its job is over.
#[derive(Debug, Clone)]
pub struct Left {
    pub sessions: usize,
    pub logins_refused: u32,
    pub media: usize,
    /// Everything that a client could and should have put back, as text.
    pub wrong: Vec<String>,
}

impl Bmc {
    /// `is_permitted`: its machine requested a permit and got it.
    pub fn left(&self, is_permitted: bool) -> Left {
        let state = self.state();
        let ours = state.media.iter().flatten().filter(|medium| !medium.is_older()).count()
            + usize::from(is_uri_ours(&state));
        let mut wrong = Vec::new();
        if ours > 0 && !may_keep_media(self.fault) {
            wrong.push(format!("{ours} media are left"));
        }
        if !state.sessions.is_empty() && !may_keep_sessions(self.fault) {
            wrong.push(format!("{} sessions are left", state.sessions.len()));
        }
        if !self.fault.permits_to_eject() && !is_foreign_kept(&state) {
            wrong.push("a foreign medium was ejected".into());
        }
        if !may_keep_override(self.fault) && !self.is_override_right(&state) {
            let (now, before) = (&state.boot, &state.before.boot);
            wrong.push(format!(
                "the override is {} {} {}, and was {} {} {}",
                now.enabled, now.target, now.mode, before.enabled, before.target, before.mode
            ));
        }
        if state.enabled_at.is_some() && !may_keep_media(self.fault) {
            wrong.push("remote media are enabled, and were disabled".into());
        }
        let fails = matches!(self.fault.expected_on(self.profile), Expected::Fails(_));
        // Before a permit nothing was written for which a machine that was off would be started.
        let is_unwritten = !state.before.is_on && !is_permitted;
        let is_untouched = fails && (self.fault.step() <= Step::Insert || is_unwritten);
        if is_untouched && state.is_on != state.before.is_on {
            wrong.push(format!("the power was {}", if state.is_on { "off" } else { "on" }));
        }
        Left {
            sessions: state.sessions.len(),
            logins_refused: state.logins_refused,
            media: ours,
            wrong,
        }
    }

    /// Whether the override is as before. An installed machine may also have none, and the mode of its installation.
    fn is_override_right(&self, state: &State) -> bool {
        let (now, before) = (&state.boot, &state.before.boot);
        let is_as_before = now.enabled == before.enabled
            && (now.enabled == "Disabled" || now.target == before.target)
            && now.mode == before.mode;
        let is_installed = !matches!(self.fault.expected_on(self.profile), Expected::Fails(_));
        // A download is set by the same request as the override.
        let is_none = now.enabled == "Disabled";
        is_as_before || (is_installed && is_none) || self.profile.plan() == Plan::None
    }
}

/// Whether the foreign media, and a foreign URL for HTTP boot, are still there.
fn is_foreign_kept(state: &State) -> bool {
    let now = state.media.iter().map(|medium| medium.as_ref().map(|medium| &medium.url));
    let before = state.before.media.iter().map(Option::as_ref);
    let is_uri_kept =
        state.before.boot.http_uri.is_empty() || state.boot.http_uri == state.before.boot.http_uri;
    now.zip(before).all(|(now, before)| before.is_none() || now == before) && is_uri_kept
}

fn is_uri_ours(state: &State) -> bool {
    !state.boot.http_uri.is_empty() && state.boot.http_uri != state.before.boot.http_uri
}

/// Whether the BMC itself keeps the media, or cannot be reached to eject them.
fn may_keep_media(fault: Fault) -> bool {
    matches!(fault, Fault::EjectFails | Fault::LieEject)
}

/// Whether a session may stay: the client does not learn of it, or is told that there is none, or the BMC cannot be
/// reached to close it.
fn may_keep_sessions(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Drip | Fault::HalfClose | Fault::Hang | Fault::HangInsert | Fault::UnauthorizedStorm
    )
}

fn may_keep_override(fault: Fault) -> bool {
    matches!(fault, Fault::LieBoot | Fault::BootRefused)
}
