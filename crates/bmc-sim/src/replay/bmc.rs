// SPDX-License-Identifier: AGPL-3.0-or-later
//! The recorded BMC: its tree in the present state, and its responses. Further effects of a request, such as a medium
//! to read or a machine to start, are returned to the caller. No network here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::actions::{Action, Actions, Verb};
use super::media;
use super::reply::Answer;
use super::settings;
use super::tree::{Content, ROOT, Recorded, Tree, key, link};
use crate::fleet::reply::{Reply, Request};
use crate::sessions::{self, Access, Sessions};

pub struct Bmc {
    recorded: Tree,
    actions: Actions,
    sessions: Sessions,
    /// Paths at which sessions are created, without the last slash. If empty, only Basic authentication is possible.
    session_paths: Vec<String>,
    /// Whether the tree's links end in a slash.
    is_slashed: bool,
    state: Mutex<State>,
}

struct State {
    tree: Tree,
    /// How often each resource was changed.
    changes: BTreeMap<String, u64>,
}

/// An effect of a request beside its response.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// The BMC reads the beginning of a medium.
    Read(String),
    /// The machine of this system is switched off.
    Off(String),
    /// It starts, from these media or from a URL.
    Start { system: String, from: BootsFrom },
}

/// The source from which a machine boots.
#[derive(Debug, PartialEq, Eq)]
pub enum BootsFrom {
    Media(Vec<String>),
    Url(String),
    /// Its own disk.
    Disk,
}

type Played = Result<(Answer, Vec<Effect>), Reply>;

impl Bmc {
    pub fn new(tree: Tree, access: Access) -> Bmc {
        let root = tree.body(ROOT).cloned().unwrap_or_default();
        let service = link(&root["SessionService"]).and_then(|path| tree.body(&path).cloned());
        let service = service.unwrap_or_default();
        let named = [&root["Links"]["Sessions"], &service["Sessions"]]
            .into_iter()
            .filter_map(link)
            .map(|path| key(&path));
        let mut session_paths: Vec<String> = named.collect();
        if session_paths.is_empty() {
            // The service is linked but was not recorded, so the standard's path is used.
            let service = link(&root["SessionService"]);
            session_paths.extend(service.map(|path| format!("{}/Sessions", key(&path))));
        }
        let is_slashed = link(&root["Systems"]).is_some_and(|path| path.ends_with('/'));
        let actions = Actions::of(&tree);
        let state = Mutex::new(State { tree: tree.clone(), changes: BTreeMap::new() });
        let sessions = Sessions::new(access);
        Bmc { recorded: tree, actions, sessions, session_paths, is_slashed, state }
    }

    pub fn recorded(&self) -> &Tree {
        &self.recorded
    }

    pub fn answer(
        &self,
        request: &Request,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> (Answer, Vec<Effect>) {
        let path = match query {
            Some(query) => key(&format!("{}?{query}", request.path)),
            None => key(&request.path),
        };
        let played = self.played(request, &path, headers);
        let (answer, effects) = played.unwrap_or_else(|refusal| (refusal.into(), Vec::new()));
        match request.method.as_str() {
            "HEAD" => (answer.without_body(), effects),
            _ => (answer, effects),
        }
    }

    fn played(&self, request: &Request, path: &str, headers: &HeaderMap) -> Played {
        let is_read = matches!(request.method.as_str(), "GET" | "HEAD");
        if request.method == "POST" && self.session_paths.iter().any(|known| known == path) {
            return self.log_in(path, &request.body).map(|answer| (answer, Vec::new()));
        }
        let is_open = is_read && matches!(path, "/redfish" | ROOT);
        if !is_open && !self.sessions.admits(headers) {
            return Err(Reply::refused(401, "NoValidSession", "a session or a login is needed"));
        }
        let mut state = self.state();
        match request.method.as_str() {
            "GET" | "HEAD" => self.read(&state, path).map(|answer| (answer, Vec::new())),
            "POST" => self.act(&mut state, path, &request.body),
            "PATCH" => self.patch(&mut state, request, path),
            "DELETE" => self.log_out(path).map(|()| (Answer::done(), Vec::new())),
            _ => Err(not_played()),
        }
    }

    fn log_in(&self, path: &str, body: &Value) -> Result<Answer, Reply> {
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let opened = self.sessions.open(text("UserName"), text("Password"));
        let opened = opened.map_err(|error| match error {
            sessions::Error::WrongPassword => {
                Reply::refused(401, "NoValidSession", &error.to_string())
            }
            sessions::Error::Full => {
                Reply::refused(503, "SessionLimitExceeded", &error.to_string())
            }
        })?;
        let slash = if self.is_slashed { "/" } else { "" };
        let session = format!("{path}/{}{slash}", opened.id);
        let body = json!({
            "@odata.id": session, "@odata.type": "#Session.v1_0_0.Session", "Id": opened.id,
            "Name": "User Session", "UserName": self.sessions.username(),
        });
        let reply = Reply::json(201, &body).with("location", session);
        Ok(reply.with("x-auth-token", opened.token).into())
    }

    fn log_out(&self, path: &str) -> Result<(), Reply> {
        match self.session_of(path) {
            Some(id) if self.sessions.close(id) => Ok(()),
            Some(_) => Err(Reply::not_found()),
            None => Err(not_played()),
        }
    }

    fn session_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (collection, id) = path.rsplit_once('/')?;
        self.session_paths.iter().any(|known| known == collection).then_some(id)
    }

    fn read(&self, state: &State, path: &str) -> Result<Answer, Reply> {
        if let Some(id) = self.session_of(path)
            && self.sessions.ids().iter().any(|open| open == id)
        {
            let body = json!({"@odata.id": path, "Id": id, "UserName": self.sessions.username()});
            return Ok(Answer::ok(&body));
        }
        let recorded = state.tree.recorded(path).ok_or_else(Reply::not_found)?;
        let Some(etag) = state.etag(path) else { return Ok(Answer::of(recorded)) };
        let mut shown = recorded.clone();
        if let Content::Json(body) = &mut shown.content
            && let Some(own) = body.get_mut("@odata.etag")
        {
            *own = json!(etag);
        }
        Ok(Answer::of(&shown).with("etag", etag))
    }

    fn act(&self, state: &mut State, target: &str, body: &Value) -> Played {
        let known = self.actions.at(target).cloned();
        let Some(action) = known.or_else(|| Bmc::offered(state, target)) else {
            return Err(match state.tree.recorded(target) {
                Some(_) => not_played(),
                None => Reply::not_found(),
            });
        };
        action.check(&state.tree, body)?;
        let owner = action.owner.as_str();
        let effects = match action.verb {
            Verb::InsertMedia => self.insert(state, &action, body)?,
            Verb::EjectMedia => self.eject(state, owner)?,
            Verb::VmmControl if body["VmmControlType"] == "Disconnect" => {
                self.eject(state, owner)?
            }
            Verb::VmmControl => self.insert(state, &action, body)?,
            Verb::ResetSystem => state.reset(&self.recorded, owner, body)?,
            // The recorded tree does not show a restart.
            Verb::ResetManager => Vec::new(),
            Verb::EnableRemoteMedia => {
                let word = if body["RMediaState"] == "Disable" { "Disabled" } else { "Enabled" };
                let change = json!({"Oem": {"Ami": {"VirtualMedia": {"RMediaStatus": word}}}});
                state.write(owner, |tree| {
                    settings::mirror(tree, owner, &change);
                    Ok(())
                })?;
                Vec::new()
            }
            Verb::Unknown => {
                let why = "this action is recorded, and the replay plays no such one";
                return Err(Reply::refused(501, "ActionNotSupported", why));
            }
        };
        Ok((Answer::done(), effects))
    }

    /// Finds an action that a slot offers now, but did not offer when it was recorded.
    fn offered(state: &State, target: &str) -> Option<Action> {
        let (slot, _) = target.split_once("/Actions/")?;
        let actions = state.tree.body(slot)?["Actions"].as_object()?;
        actions.iter().find_map(|(name, object)| {
            let is_it = object["target"].as_str().is_some_and(|path| key(path) == target);
            is_it.then(|| Action::of(slot, name, object))
        })
    }

    fn insert(
        &self,
        state: &mut State,
        action: &Action,
        body: &Value,
    ) -> Result<Vec<Effect>, Reply> {
        let Some(url) = body["Image"].as_str().filter(|url| !url.is_empty()) else {
            return Err(Reply::refused(400, "ActionParameterMissing", "Image"));
        };
        let protocol = url.split("://").next().unwrap_or_default().to_ascii_uppercase();
        if body.get("TransferProtocolType").is_none()
            && !action.takes_protocol(&state.tree, &protocol)
        {
            return Err(Reply::refused(400, "ActionParameterValueNotInList", &protocol));
        }
        state.write(&action.owner, |tree| media::insert(tree, &action.owner, url, body))?;
        Ok(vec![Effect::Read(url.to_owned())])
    }

    fn eject(&self, state: &mut State, slot: &str) -> Result<Vec<Effect>, Reply> {
        state.write(slot, |tree| media::eject(tree, &self.recorded, slot))?;
        Ok(Vec::new())
    }

    fn patch(&self, state: &mut State, request: &Request, path: &str) -> Played {
        let recorded = state.tree.recorded(path).ok_or_else(Reply::not_found)?;
        if recorded.status != 200 {
            return Ok((Answer::of(recorded), Vec::new()));
        }
        if !takes_patch(recorded) {
            return Err(not_played());
        }
        let opaque = |etag: &str| etag.trim_start_matches("W/").to_owned();
        if let (Some(given), Some(now)) = (&request.if_match, state.etag(path))
            && given != "*"
            && opaque(given) != opaque(&now)
        {
            return Err(Reply::refused(412, "PreconditionFailed", "it was changed meanwhile"));
        }
        let body = &request.body;
        if state.tree.body(path).is_some_and(media::is_slot) {
            return self.patch_slot(state, path, body);
        }
        if settings::settings_object(&state.tree, path, body).is_some() {
            // It accepts the change without effect: only the settings object has an effect.
            return Ok((Answer::done(), Vec::new()));
        }
        state.write(path, |tree| settings::patch(tree, path, body))?;
        for (_, owner) in settings::owners(&state.tree).iter().filter(|(own, _)| own == path) {
            state.write(owner, |tree| {
                settings::mirror(tree, owner, body);
                Ok(())
            })?;
        }
        Ok((Answer::done(), Vec::new()))
    }

    fn patch_slot(&self, state: &mut State, path: &str, body: &Value) -> Played {
        if !state.tree.body(path).is_some_and(media::is_patched) {
            return Err(Reply::refused(405, "OperationNotAllowed", "use the slot's actions"));
        }
        let url = body["Image"].as_str().filter(|url| !url.is_empty() && body["Inserted"] != false);
        match url {
            Some(url) => {
                state.write(path, |tree| media::insert(tree, path, url, body))?;
                Ok((Answer::done(), vec![Effect::Read(url.to_owned())]))
            }
            None => Ok((Answer::done(), self.eject(state, path)?)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The ETag of a resource that was recorded with one. It changes with the resource.
    fn etag(&self, path: &str) -> Option<String> {
        let recorded = self.tree.recorded(path)?;
        let header = recorded.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("etag"));
        let own = match &recorded.content {
            Content::Json(body) => body["@odata.etag"].as_str(),
            Content::Text(_) => None,
        };
        let etag = header.map(|(_, value)| value.as_str()).or(own)?;
        Some(match (self.changes.get(&key(path)), etag.strip_suffix('"')) {
            (None, _) => etag.to_owned(),
            (Some(count), Some(begun)) => format!("{begun}-{count}\""),
            (Some(count), None) => format!("{etag}-{count}"),
        })
    }

    fn write(
        &mut self,
        path: &str,
        change: impl FnOnce(&mut Tree) -> Result<(), Reply>,
    ) -> Result<(), Reply> {
        change(&mut self.tree)?;
        *self.changes.entry(key(path)).or_default() += 1;
        Ok(())
    }

    fn reset(&mut self, recorded: &Tree, system: &str, body: &Value) -> Result<Vec<Effect>, Reply> {
        let Some(kind) = body["ResetType"].as_str() else {
            return Err(Reply::refused(400, "ActionParameterMissing", "ResetType"));
        };
        let is_on = self.tree.body(system).is_some_and(|body| body["PowerState"] == "On");
        let will_be_on = match kind {
            "On" | "ForceOn" if is_on => return Ok(Vec::new()),
            "On" | "ForceOn" | "ForceRestart" | "GracefulRestart" | "PowerCycle"
            | "FullPowerCycle" => true,
            "ForceOff" | "GracefulShutdown" => false,
            "PushPowerButton" => !is_on,
            _ => return Ok(Vec::new()),
        };
        let word = if will_be_on { "On" } else { "Off" };
        self.write(system, |tree| {
            settings::mirror(tree, system, &json!({"PowerState": word}));
            Ok(())
        })?;
        let mut effects = vec![Effect::Off(system.to_owned())];
        if will_be_on {
            let from = self.start(recorded, system)?;
            effects.push(Effect::Start { system: system.to_owned(), from });
        }
        Ok(effects)
    }

    /// Determines the source of the boot. A one-time override is over then.
    fn start(&mut self, recorded: &Tree, system: &str) -> Result<BootsFrom, Reply> {
        let body = self.tree.body(system).cloned().unwrap_or_default();
        let boot = &body["Boot"];
        let enabled = boot["BootSourceOverrideEnabled"].as_str().unwrap_or("Disabled");
        let target = match enabled {
            "Disabled" => "None",
            _ => boot["BootSourceOverrideTarget"].as_str().unwrap_or("None"),
        };
        let url = boot["HttpBootUri"].as_str().unwrap_or_default();
        let from = if matches!(target, "Cd" | "UsbCd") || self.is_idrac_boot_from_cd(&body) {
            let slots = media::slots_of(&self.tree, system).into_iter();
            let images = slots
                .filter_map(|slot| self.tree.body(&slot).and_then(media::image).map(str::to_owned));
            BootsFrom::Media(images.collect())
        } else if target == "UefiHttp" && !url.is_empty() {
            BootsFrom::Url(url.to_owned())
        } else {
            BootsFrom::Disk
        };
        if enabled == "Once" {
            let over = json!({"Boot": {"BootSourceOverrideEnabled": "Disabled"}});
            let settings = link(&body["@Redfish.Settings"]["SettingsObject"]);
            for path in [Some(system.to_owned()), settings].into_iter().flatten() {
                self.write(&path, |tree| {
                    settings::mirror(tree, &path, &over);
                    Ok(())
                })?;
            }
        }
        self.end_idrac_boot(recorded, &body)?;
        Ok(from)
    }

    /// Whether an older iDRAC is set to boot from CD: it has the override among the manager's attributes (Dell's iDRAC
    /// attribute registry, ServerBoot).
    fn is_idrac_boot_from_cd(&self, system: &Value) -> bool {
        attributes(&self.tree, system).is_some_and(|(_, attributes)| {
            attributes["ServerBoot.1.BootOnce"] == "Enabled"
                && attributes["ServerBoot.1.FirstBootDevice"] == "VCD-DVD"
        })
    }

    fn end_idrac_boot(&mut self, recorded: &Tree, system: &Value) -> Result<(), Reply> {
        if !self.is_idrac_boot_from_cd(system) {
            return Ok(());
        }
        let before = attributes(recorded, system).map(|(_, attributes)| attributes.clone());
        let device = before.unwrap_or_default()["ServerBoot.1.FirstBootDevice"].clone();
        let Some((path, _)) = attributes(&self.tree, system) else { return Ok(()) };
        let over = json!({"Attributes": {
            "ServerBoot.1.BootOnce": "Disabled", "ServerBoot.1.FirstBootDevice": device,
        }});
        self.write(&path, |tree| {
            settings::mirror(tree, &path, &over);
            Ok(())
        })
    }
}

/// The attributes of the first manager of a system that has any, and their path.
fn attributes<'a>(tree: &'a Tree, system: &Value) -> Option<(String, &'a Value)> {
    let managers = system["Links"]["ManagedBy"].as_array()?.iter().filter_map(link);
    managers.map(|manager| format!("{}/Attributes", key(&manager))).find_map(|path| {
        let attributes = tree.body(&path)?.get("Attributes")?;
        Some((path, attributes))
    })
}

/// Whether PATCH is allowed, according to the recorded `Allow` header. Without one it is.
fn takes_patch(recorded: &Recorded) -> bool {
    let allow = recorded.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("allow"));
    allow.is_none_or(|(_, methods)| methods.to_ascii_uppercase().contains("PATCH"))
}

fn not_played() -> Reply {
    Reply::refused(405, "OperationNotAllowed", "the resource does not take this method")
}
