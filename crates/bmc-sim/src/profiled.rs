// SPDX-License-Identifier: AGPL-3.0-or-later
//! The Redfish resources of a QEMU machine whose BMC follows one of the fleet's profiles. The documents come from
//! `fleet::resources`, rejections from `fleet::asked`, bytes from `fleet::wire`. Only the machine behind differs.
//!
//! Slots that accept URLs are mapped to the machine's drives, in order. Slots without a drive are not shown.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use crate::{
    answer::Refusal,
    document::etag,
    fleet::{
        Profile, asked,
        profile::Takes,
        reply::{Reply, Request},
        resources::{self, Boot, Paths, Who},
        wire,
    },
    machine::{self, Enabled, Handle, Target},
    slots::{Slot, Slots},
    virtual_media,
};

/// Properties of the machine that the profile does not define.
pub(crate) struct Shown {
    pub(crate) serial: String,
    pub(crate) uuid: Uuid,
}

pub(crate) struct Bmc {
    profile: &'static Profile,
    paths: Paths,
    shown: Shown,
    machine: Handle,
    slots: Slots,
    /// By drive: the time since which it holds its medium.
    since: Mutex<[Option<Instant>; Slot::COUNT]>,
}

/// Handles every request except those about sessions. The clients are already authenticated.
pub(crate) fn service(bmc: Bmc) -> Router {
    Router::new().fallback(respond).with_state(Arc::new(bmc))
}

async fn respond(State(bmc): State<Arc<Bmc>>, head: Parts, bytes: Bytes) -> Response {
    let request = Request::of(&head, bytes);
    let reply = bmc.reply(&request).await.unwrap_or_else(|refusal| refusal);
    match wire::dressed(bmc.profile, &request, reply) {
        Ok(reply) => response(reply),
        Err(error) => {
            tracing::warn!(error = &*error, "write a response");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn response(reply: Reply) -> Response {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let response = response.body(Body::from(reply.body));
    response.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

impl Bmc {
    pub(crate) fn new(
        profile: &'static Profile,
        shown: Shown,
        machine: Handle,
        slots: Slots,
    ) -> Bmc {
        let (paths, since) = (Paths::of(profile, 0), Mutex::default());
        Bmc { profile, paths, shown, machine, slots, since }
    }

    async fn reply(&self, request: &Request) -> Result<Reply, Reply> {
        let path = request.path.as_str();
        if let Some(redirect) = wire::redirect(self.profile, request) {
            return Ok(redirect);
        }
        let slot_of = |action: &str| {
            let slot = path.strip_suffix(action)?;
            self.numbers().find(|number| self.paths.slots[*number] == slot)
        };
        let [insert, eject] = resources::action_suffixes(self.profile);
        match request.method.as_str() {
            "GET" => {
                let body = self.document(path).ok_or_else(Reply::not_found)?;
                Ok(Reply::ok(&body).with("etag", etag(&body)))
            }
            "POST" if path == self.paths.reset => self.reset(&request.body).await,
            "POST" => match (slot_of(insert), slot_of(eject)) {
                (Some(slot), _) => self.insert(slot, &request.body).await,
                (_, Some(slot)) => self.eject(slot, &request.body).await,
                (None, None) => Err(Reply::not_found()),
            },
            "PATCH" if path == self.paths.boot => self.set_boot(request).await,
            "PATCH" => match slot_of("") {
                Some(slot) => self.patch_slot(slot, request).await,
                None => Err(not_changeable()),
            },
            _ => Err(Reply::refused(405, "OperationNotAllowed", "there is no such method")),
        }
    }

    fn document(&self, path: &str) -> Option<Value> {
        let Bmc { profile, paths, .. } = self;
        Some(if path == resources::ROOT {
            let mut root = resources::root(&profile.told);
            if let Some(root) = root.as_object_mut() {
                // Only a BMC of the fleet has these.
                root.retain(|name, _| !matches!(name.as_str(), "Tasks" | "UpdateService"));
            }
            root
        } else if path == resources::SYSTEMS {
            resources::collection(path, std::slice::from_ref(&paths.system))
        } else if path == paths.system || path == paths.boot {
            let uuid = self.shown.uuid.to_string();
            let who = Who { serial: &self.shown.serial, uuid: &uuid };
            let view = self.machine.view();
            resources::system(profile, paths, &who, view.is_on, &self.boot(&view.boot))
        } else if path == resources::MANAGERS {
            resources::collection(path, std::slice::from_ref(&paths.manager))
        } else if path == paths.manager {
            resources::manager(profile, paths, true)
        } else if path == paths.media {
            let slots: Vec<_> = self.numbers().map(|number| paths.slots[number].clone()).collect();
            resources::collection(path, &slots)
        } else {
            let number = self.numbers().find(|number| paths.slots[*number] == path)?;
            self.slot(number)
        })
    }

    /// The numbers of the profile's slots that this BMC has.
    fn numbers(&self) -> impl Iterator<Item = usize> {
        let is_there = |number: &usize| {
            self.profile.slots[*number].takes != Takes::Urls || self.drive(*number).is_some()
        };
        (0..self.profile.slots.len()).filter(is_there)
    }

    /// The drive to which a slot is mapped.
    fn drive(&self, number: usize) -> Option<Slot> {
        let takes_urls = |number: usize| self.profile.slots[number].takes == Takes::Urls;
        let before = (0..number).filter(|before| takes_urls(*before)).count();
        takes_urls(number).then(|| self.slots.all().get(before).copied())?
    }

    fn slot(&self, number: usize) -> Value {
        let view = self.machine.view();
        let drive = self.drive(number);
        let image = drive.and_then(|drive| view.media[drive as usize].as_ref()).map(Url::as_str);
        let shown = resources::Shown {
            image,
            former: None,
            offers_eject: drive.is_some_and(|drive| self.offers_eject(drive)),
            offers_insert: image.is_none() || self.profile.eject_appears_after().is_none(),
        };
        resources::slot(self.profile, &self.paths.slots[number], number, &shown)
    }

    fn offers_eject(&self, drive: Slot) -> bool {
        let Some(after) = self.profile.eject_appears_after() else { return true };
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner)[drive as usize];
        since.is_some_and(|since| since.elapsed() >= after)
    }

    fn boot(&self, boot: &machine::Boot) -> Boot {
        let target = match boot.target {
            Target::Cd => self.word_of_cd(),
            Target::Hdd => "Hdd",
            Target::None | Target::UefiHttp => "None",
        };
        let enabled = match boot.enabled {
            Enabled::Disabled => "Disabled",
            Enabled::Once => "Once",
            Enabled::Continuous => "Continuous",
        };
        Boot { enabled: enabled.into(), target: target.into(), ..Boot::none() }
    }

    /// The target of the boot override for a virtual CD.
    fn word_of_cd(&self) -> &'static str {
        let is_usb = self.profile.boot.targets.contains(&"UsbCd");
        if is_usb { "UsbCd" } else { "Cd" }
    }

    async fn insert(&self, number: usize, body: &Value) -> Result<Reply, Reply> {
        let url = asked::image(self.profile, number, body)?;
        self.fill(number, &url).await
    }

    async fn eject(&self, number: usize, body: &Value) -> Result<Reply, Reply> {
        let drive = self.drive(number).ok_or_else(Reply::not_found)?;
        if !self.offers_eject(drive) {
            let why = "the slot does not offer EjectMedia";
            return Err(Reply::refused(405, "ActionNotSupported", why));
        }
        asked::eject(self.profile, body)?;
        self.empty(drive).await
    }

    async fn patch_slot(&self, number: usize, request: &Request) -> Result<Reply, Reply> {
        match asked::slot(self.profile, number, request, &etag(&self.slot(number)))? {
            Some(url) => self.fill(number, url).await,
            None => match self.drive(number) {
                Some(drive) => self.empty(drive).await,
                // It is empty anyway.
                None => Ok(Reply::done()),
            },
        }
    }

    async fn fill(&self, number: usize, url: &str) -> Result<Reply, Reply> {
        let drive = self.drive(number).ok_or_else(Reply::not_found)?;
        let url = Url::parse(url)
            .map_err(|_| Reply::refused(400, "PropertyValueFormatError", "Image is no URL"))?;
        virtual_media::probe(&url).await?;
        self.machine.insert(drive, url).await.map_err(Refusal::from)?;
        self.now_holds(drive, Some(Instant::now()));
        Ok(Reply::done())
    }

    async fn empty(&self, drive: Slot) -> Result<Reply, Reply> {
        self.machine.eject(drive).await.map_err(Refusal::from)?;
        self.now_holds(drive, None);
        Ok(Reply::done())
    }

    fn now_holds(&self, drive: Slot, since: Option<Instant>) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)[drive as usize] = since;
    }

    async fn set_boot(&self, request: &Request) -> Result<Reply, Reply> {
        if self.profile.boot.needs_etag {
            let now = self.document(&self.paths.boot).ok_or_else(Reply::not_found)?;
            asked::matching(request, &etag(&now))?;
        }
        let asked = asked::boot(self.profile, request)?;
        let wrong = |name: &str| Reply::refused(400, "PropertyValueNotInList", name);
        if asked.mode.is_some_and(|mode| mode != "UEFI") {
            return Err(wrong("BootSourceOverrideMode"));
        }
        let mut boot = self.machine.view().boot;
        if let Some(enabled) = asked.enabled {
            boot.enabled = serde_json::from_value(json!(enabled))
                .map_err(|_| wrong("BootSourceOverrideEnabled"))?;
        }
        boot.target = match asked.target {
            None => boot.target,
            Some("None") => Target::None,
            Some("Hdd") => Target::Hdd,
            Some(target) if target == self.word_of_cd() => Target::Cd,
            // A QEMU machine has nothing else to boot from.
            Some(_) => return Err(wrong("BootSourceOverrideTarget")),
        };
        self.machine.set_boot(boot).await.map_err(Refusal::from)?;
        Ok(Reply::done())
    }

    async fn reset(&self, body: &Value) -> Result<Reply, Reply> {
        let kind = json!(asked::reset(self.profile, body)?);
        let reset = serde_json::from_value(kind)
            .map_err(|_| Reply::refused(400, "ActionParameterNotSupported", "ResetType"))?;
        self.machine.reset(reset).await.map_err(Refusal::from)?;
        Ok(Reply::done())
    }
}

fn not_changeable() -> Reply {
    Reply::refused(405, "OperationNotAllowed", "this cannot be changed")
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Reply::refused(refusal.status.as_u16(), refusal.message_id, &refusal.message)
    }
}

#[cfg(test)]
mod tests {
    use crate::{fleet::profile::quirk::Quirk, maker::Maker};

    #[test]
    fn every_quirk_of_a_profile_that_a_machine_has_is_played() {
        for maker in [Maker::Supermicro, Maker::Lenovo] {
            let profile = maker.profile().unwrap();
            for quirk in profile.quirks {
                let is_played = matches!(quirk, Quirk::EjectAppears(_));
                assert!(is_played, "{} has {quirk:?}", profile.name);
            }
        }
    }
}
