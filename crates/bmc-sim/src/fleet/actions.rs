// SPDX-License-Identifier: AGPL-3.0-or-later
//! Actions on a BMC: media, boot override, power. Each behaves as the BMC's profile and fault require.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::bmc::{Bmc, Medium, State};
use super::fault::Fault;
use super::profile::Insert;
use super::profile::quirk::{Errors, Quirk};
use super::reply::{Manner, Reply, Request};
use super::resources::Boot;
use super::{Shared, asked, node, resources};

/// The duration of a BMC's restart on real hardware.
const RESTART: Duration = Duration::from_secs(60);
/// How long an insert keeps a slow BMC busy, on real hardware.
const INSERT_WORK: Duration = Duration::from_secs(5);
/// The time from the request until remote media are available, on real hardware that has them disabled at first.
const ENABLES_MEDIA_IN: Duration = Duration::from_secs(3);

impl Bmc {
    pub(super) fn insert(
        &self,
        state: &mut State,
        shared: &Shared,
        body: &Value,
        slot: usize,
    ) -> Reply {
        if !self.has_media(state, shared) {
            return Reply::not_found();
        }
        let url = match asked::image(self.profile, slot, body) {
            Ok(url) => url,
            Err(refusal) => return refusal,
        };
        if state.media[slot].is_some() {
            return Reply::refused(409, "ResourceInUse", "there is a medium in this slot");
        }
        shared.confide(url.split('/').rev().nth(1));
        match self.fault {
            Fault::HangInsert => Reply::done().in_manner(Manner::Never),
            Fault::LieInsert => Reply::done(),
            Fault::NoLicence => self.no_licence(),
            // Like some BMCs, it repeats the URL, which is a secret.
            Fault::InsertRefused => {
                Reply::refused(500, "InternalError", &format!("cannot mount {url}"))
            }
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
                self.inserted(state, slot, url)
            }
        }
    }

    fn inserted(&self, state: &mut State, slot: usize, url: String) -> Reply {
        state.media[slot] = Some(Medium::now(url.clone()));
        state.count += 1;
        let is_task = self.profile.insert == Insert::Task
            || matches!(self.fault, Fault::TaskVanish | Fault::TaskSlow);
        let reply = if is_task { state.task() } else { Reply::done() };
        let copies = self.profile.has(Quirk::CopiesMedia);
        Reply { prefetch: copies.then_some((slot, url)), ..reply }
    }

    fn no_licence(&self) -> Reply {
        match self.profile.errors() {
            Some(Errors::MessageIds) => Reply::refused(400, "iLO.2.8.LicenseKeyRequired", ""),
            _ => Reply::refused(403, "InsufficientPrivilege", "needs a licence"),
        }
    }

    /// Whether the slots exist now.
    pub(super) fn has_media(&self, state: &State, shared: &Shared) -> bool {
        let work = shared.scaled(ENABLES_MEDIA_IN);
        !self.profile.has(Quirk::MediaDisabled)
            || state.enabled_at.is_some_and(|at| at.elapsed() >= work)
    }

    /// AMI's OEM action. Its response has the form of an error, but reports success.
    pub(super) fn enable_media(state: &mut State, body: &Value) -> Reply {
        match body["RMediaState"].as_str() {
            Some("Enable") => {
                state.enabled_at.get_or_insert_with(Instant::now);
            }
            // All media are removed together with the slots.
            Some("Disable") => {
                state.enabled_at = None;
                state.media.fill(None);
            }
            _ => return Reply::refused(400, "ActionParameterValueNotInList", "RMediaState"),
        }
        Reply::ok(&json!({"error": {
            "code": "Base.1.5.Success", "message": "Successfully Completed Request",
            "@Message.ExtendedInfo": [{
                "MessageId": "Base.1.5.Success", "Message": "Successfully Completed Request",
                "Severity": "OK", "Resolution": "None",
            }],
        }}))
    }

    /// Whether the slot offers `EjectMedia` now.
    pub(super) fn offers_eject(&self, state: &State, shared: &Shared, slot: usize) -> bool {
        let Some(after) = self.profile.eject_appears_after() else { return true };
        let since = state.media[slot].as_ref().map(|medium| medium.since);
        since.is_some_and(|since| since.elapsed() >= shared.scaled(after))
    }

    /// Removes the medium.
    fn empty(state: &mut State, slot: usize) {
        if let Some(medium) = state.media[slot].take() {
            state.former[slot] = Some(medium.url);
        }
        state.count += 1;
    }

    pub(super) fn eject(
        &self,
        state: &mut State,
        shared: &Shared,
        body: &Value,
        slot: usize,
    ) -> Reply {
        if !self.offers_eject(state, shared, slot) {
            return Reply::refused(405, "ActionNotSupported", "the slot does not offer EjectMedia");
        }
        if let Err(refusal) = asked::eject(self.profile, body) {
            return refusal;
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
        Bmc::empty(state, slot);
        Reply::done()
    }

    /// PATCH of a slot without actions: an image inserts, null ejects.
    pub(super) fn patch_slot(
        &self,
        state: &mut State,
        shared: &Shared,
        request: &Request,
        slot: usize,
    ) -> Reply {
        let url = match asked::slot(self.profile, slot, request, &state.etag()) {
            Ok(url) => url,
            Err(refusal) => return refusal,
        };
        shared.confide(url.and_then(|url| url.split('/').rev().nth(1)));
        match (self.fault, url) {
            (Fault::HangInsert, Some(_)) => return Reply::done().in_manner(Manner::Never),
            (Fault::LieInsert, Some(_)) | (Fault::LieEject, None) => return Reply::done(),
            (Fault::NoLicence, Some(_)) => {
                return self.no_licence();
            }
            (Fault::InsertRefused, Some(url)) => {
                return Reply::refused(500, "InternalError", &format!("cannot mount {url}"));
            }
            (Fault::EjectFails, None) => {
                return Reply::refused(500, "InternalError", "cannot eject");
            }
            _ => {}
        }
        match url {
            Some(url) => {
                state.media[slot] = Some(Medium::now(url.to_owned()));
                state.count += 1;
            }
            None => Bmc::empty(state, slot),
        }
        Reply::done()
    }

    pub(super) fn patch_boot(
        &self,
        state: &mut State,
        shared: &Shared,
        request: &Request,
    ) -> Reply {
        if self.profile.boot.needs_etag
            && let Err(refusal) = asked::matching(request, &state.etag())
        {
            return refusal;
        }
        if state.is_on
            && let Some(post) = self.profile.post()
            && state.on_since.elapsed() < shared.scaled(post)
        {
            let id = "iLO.2.37.UnableToModifyDuringSystemPOST";
            return Reply::refused(400, id, "the firmware is in POST");
        }
        let asked = match asked::boot(self.profile, request) {
            Ok(asked) => asked,
            Err(refusal) => return refusal,
        };
        if let Some(reply) = asked.http_uri.and_then(|uri| self.fault_of_uri(state, shared, uri)) {
            return reply;
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
        set(&mut state.boot.enabled, asked.enabled);
        set(&mut state.boot.target, asked.target);
        set(&mut state.boot.mode, asked.mode);
        set(&mut state.boot.http_uri, asked.http_uri);
        state.count += 1;
        if self.fault == Fault::RebootAtOverride && state.strikes(1) {
            return self.restart(state, shared);
        }
        Reply::done()
    }

    /// The faults of setting a URL for the firmware, which is this BMC's way to insert. An empty URL ejects.
    fn fault_of_uri(&self, state: &mut State, shared: &Shared, uri: &str) -> Option<Reply> {
        shared.confide(uri.split('/').rev().nth(1));
        Some(match (self.fault, uri.is_empty()) {
            (Fault::HangInsert, false) => Reply::done().in_manner(Manner::Never),
            (Fault::LieInsert, false) | (Fault::LieEject, true) => Reply::done(),
            (Fault::NoLicence, false) => self.no_licence(),
            (Fault::InsertRefused, false) => {
                Reply::refused(500, "InternalError", &format!("cannot use {uri}"))
            }
            (Fault::EjectFails, true) => Reply::refused(500, "InternalError", "cannot change"),
            (Fault::EjectRefusedWhileOn, true) if state.is_on => {
                Reply::refused(409, "ResourceInUse", "the machine is on")
            }
            (Fault::RebootAtInsert, false) | (Fault::RebootAtEject, true) if state.strikes(1) => {
                self.restart(state, shared)
            }
            _ => return None,
        })
    }

    pub(super) fn reset(
        self: &Arc<Self>,
        state: &mut State,
        shared: &Arc<Shared>,
        body: &Value,
    ) -> Reply {
        let kind = match asked::reset(self.profile, body) {
            Ok(kind) => kind,
            Err(refusal) => return refusal,
        };
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
            "ForceRestart" | "GracefulRestart" | "PowerCycle" if !state.is_on => {
                return Reply::refused(409, "ResourceInUse", "the machine is off");
            }
            "ForceRestart" | "GracefulRestart" | "PowerCycle" => {
                state.power_off();
                self.power_on(state, shared);
            }
            "PushPowerButton" if !state.is_on => self.power_on(state, shared),
            _ => state.power_off(),
        }
        state.count += 1;
        if self.fault == Fault::RebootAtReset && state.is_on && state.strikes(1) {
            // The machine continues meanwhile, with its media.
            let media = state.media.clone();
            let reply = self.restart(state, shared);
            state.media = media;
            return reply;
        }
        Reply::done()
    }

    fn power_on(self: &Arc<Self>, state: &mut State, shared: &Arc<Shared>) {
        state.is_on = true;
        state.on_since = Instant::now();
        let is_heeded = state.boot.enabled != "Disabled" && self.fault != Fault::OverrideIgnored;
        let is_from_cd = is_heeded && matches!(state.boot.target.as_str(), "Cd" | "UsbCd");
        let is_from_http = is_heeded && state.boot.target == "UefiHttp";
        if state.boot.enabled == "Once" && self.fault != Fault::OverrideNotConsumed {
            state.boot =
                Boot { http_uri: std::mem::take(&mut state.boot.http_uri), ..Boot::none() };
        }
        if self.fault == Fault::DropsMediaAtReset {
            state.forget_media();
            state.boot.http_uri.clear();
        }
        let is_bootable = |medium: &Option<Medium>| {
            medium.as_ref().is_some_and(|m| m.url.contains("maintenance"))
        };
        let bootable = match self.profile.has(Quirk::BootsFirstSlotOnly) {
            true => state.media.first().is_some_and(is_bootable),
            false => state.media.iter().any(is_bootable),
        };
        let loads = if is_from_cd && bootable {
            node::Loads::Media(state.media.iter().flatten().cloned().collect())
        } else if is_from_http && !state.boot.http_uri.is_empty() {
            node::Loads::Url(state.boot.http_uri.clone())
        } else {
            return;
        };
        state.boots += 1;
        let (board, shared, number) = (self.board(), shared.clone(), state.boots);
        let boot = node::Boot { board, shared, loads, number };
        state.node = Some(tokio::spawn(node::live(boot)).abort_handle());
    }

    /// The machine behind the BMC, with its SMBIOS data.
    fn board(&self) -> node::Board {
        let serial = match self.fault {
            Fault::WrongSerial => "ANOTHER-BOARD",
            _ => &self.serial,
        };
        let board_serial = match self.profile.has(Quirk::ServiceTag) {
            true => format!(".{serial}.{}.", resources::board_serial(serial)),
            false => String::new(),
        };
        node::Board {
            name: self.serial.clone(),
            serial: serial.to_owned(),
            uuid: self.uuid.clone(),
            board_serial,
            manufacturer: self.profile.manufacturer.to_owned(),
            product: self.profile.model.to_owned(),
            fault: self.fault,
        }
    }

    /// Restarts the BMC: it is unreachable for a while, and loses its memory but not its settings.
    pub(super) fn restart(&self, state: &mut State, shared: &Shared) -> Reply {
        state.away_until = Some(Instant::now() + shared.scaled(RESTART));
        state.sessions.clear();
        state.forget_media();
        Reply::done().in_manner(Manner::Dropped)
    }
}

impl State {
    /// Removes the media that our own clients inserted.
    fn forget_media(&mut self) {
        for medium in &mut self.media {
            if !medium.as_ref().is_some_and(Medium::is_foreign) {
                *medium = None;
            }
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
