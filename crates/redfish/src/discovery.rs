// SPDX-License-Identifier: AGPL-3.0-or-later
//! Discovery: finds the wanted system from the service root, then its manager and its media slots.
//!
//! ```text
//! Systems ──▶ those with the name ──▶ those that can be booted ──▶ exactly one
//!    │           none: by chassis, or the BMC's only machine if it shows no number
//!    └── a member that cannot be read is noted; it is an error only if it may be the wanted machine
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::document::texts;
use crate::machine::{has_http_boot, machine_of, power_of, targets_of};
use crate::members::{MEMBERS_MAX, Member, Members, SIBLING_PATIENCE, Unread};
use crate::profile::{Quirk, detect};
use crate::slot::{slot_of, suit};
use crate::{Bmc, Error, Machine, Slot, Told, Wanted, links};

/// Most chassis of a system whose serial numbers are read: a blade has two or three.
const CHASSIS_MAX: usize = 4;

impl Bmc {
    /// The machine behind this BMC; with `wanted`, exactly that one. It is an error if two systems have the wanted
    /// name.
    pub async fn machine(&self, wanted: Option<Wanted<'_>>) -> Result<Machine, Error> {
        let root = self.look("/redfish/v1/").await?.body;
        let is_named = |system: &System| wanted.is_none_or(|w| (w.is_it)(&system.told, w.name));
        let is_found =
            |read: &[Member]| read.iter().any(|member| is_named(&self.system(&root, member)));
        // Once the machine is found, busy siblings are not waited for.
        let Members { read, unread } =
            self.members(&root["Systems"], Duration::ZERO, is_found).await?;
        let mut systems: Vec<System> =
            read.iter().map(|member| self.system(&root, member)).collect();
        let mut meant: Vec<usize> =
            (0..systems.len()).filter(|at| is_named(&systems[*at])).collect();
        if let (true, Some(wanted)) = (meant.is_empty(), wanted) {
            meant = self.silent(&mut systems, &unread, wanted).await?;
        }
        // A tray or a baseboard may show the number of its machine.
        meant.retain(|at| systems[*at].has_any());
        let at = match meant.as_slice() {
            [at] => *at,
            [] => return Err(self.no_machine(&systems, unread, wanted)),
            [first, ..] if wanted.is_none() => *first,
            several => return Err(self.ambiguous(&systems, several, wanted)),
        };
        let is_only_one = systems.len() == 1 && unread.iter().all(Unread::is_absent);
        let System { path, body, told, .. } = systems.swap_remove(at);
        let mut notes = Notes::default();
        for one in &unread {
            notes.add(self, &one.path, &one.error);
        }
        let manager = self.manager_of(&root, &body, &mut notes).await?;
        let said = manager.as_ref().map_or(&Value::Null, |manager| &*manager.body);
        let profile = self.profile.unwrap_or_else(|| detect(&root, said, &body));
        let mut slots =
            self.slots_of(&root, &path, &body, manager.as_ref(), is_only_one, &mut notes).await?;
        suit(&mut slots, profile);
        let chassis_serial = told.chassis_serial;
        let mut machine = machine_of(path, &body, manager, profile, slots);
        machine.told.chassis_serial = chassis_serial;
        if power_of(&body).is_none() {
            self.add_power_of_chassis(&mut machine, &body).await?;
        }
        self.add_linked(&mut machine, &body, &mut notes).await?;
        machine.unread = notes.texts;
        machine.unread_may_pass = notes.may_pass;
        Ok(machine)
    }

    fn system(&self, root: &Value, member: &Member) -> System {
        // The maker can be detected without the manager, which would cost a request.
        let profile = self.profile.unwrap_or_else(|| detect(root, &Value::Null, &member.body));
        System {
            path: member.path.clone(),
            told: Told::of(&member.body, profile.has(Quirk::SkuIsServiceTag)),
            body: member.body.clone(),
        }
    }

    /// Called if no system has the name: finds the system whose chassis has it, or the BMC's only machine, if what it
    /// shows does not contradict the name.
    async fn silent(
        &self,
        systems: &mut [System],
        unread: &[Unread],
        wanted: Wanted<'_>,
    ) -> Result<Vec<usize>, Error> {
        let machines: Vec<usize> = (0..systems.len()).filter(|at| systems[*at].has_all()).collect();
        let mut meant = Vec::new();
        for at in &machines {
            let system = &mut systems[*at];
            if !(wanted.may_be)(&system.told, wanted.name) {
                continue;
            }
            system.told.chassis_serial = self.chassis_serial(&system.path, &system.body).await?;
            if (wanted.is_it)(&system.told, wanted.name) {
                meant.push(*at);
            }
        }
        let may_be = |at: &usize| (wanted.may_be)(&systems[*at].told, wanted.name);
        // A system that cannot be read may be the wanted machine, even if the BMC returns 404: some do so for a
        // machine that is off.
        if meant.is_empty() && machines.len() == 1 && unread.is_empty() {
            meant.extend(machines.into_iter().filter(may_be));
        }
        Ok(meant)
    }

    async fn chassis_serial(&self, path: &str, system: &Value) -> Result<String, Error> {
        for (_, chassis) in self.own_chassis(path, system).await? {
            let serial = chassis["SerialNumber"].as_str().unwrap_or_default().trim();
            if !serial.is_empty() {
                return Ok(serial.to_owned());
            }
        }
        Ok(String::new())
    }

    /// Reads the power state from the chassis: some BMCs show it only there.
    async fn add_power_of_chassis(
        &self,
        machine: &mut Machine,
        system: &Value,
    ) -> Result<(), Error> {
        for (path, chassis) in self.own_chassis(&machine.system_path, system).await? {
            if let Some(power) = power_of(&chassis) {
                (machine.power, machine.power_path) = (power, Some(path));
                return Ok(());
            }
        }
        Ok(())
    }

    /// The chassis that contain only this system: a chassis with several blades says nothing about each of them.
    async fn own_chassis(
        &self,
        path: &str,
        system: &Value,
    ) -> Result<Vec<(String, Arc<Value>)>, Error> {
        let linked =
            system["Links"]["Chassis"].as_array().into_iter().flatten().filter_map(links::of);
        let mut own = Vec::new();
        for chassis in linked.take(CHASSIS_MAX) {
            let Ok(answer) = self.read_optional(&chassis).await? else { continue };
            let held = answer.body["Links"]["ComputerSystems"].as_array();
            let held: Vec<String> = held.into_iter().flatten().filter_map(links::of).collect();
            if matches!(&held[..], [one] if links::is_same(one, path)) {
                own.push((chassis, answer.body));
            }
        }
        Ok(own)
    }

    fn ambiguous(&self, systems: &[System], meant: &[usize], wanted: Option<Wanted<'_>>) -> Error {
        let uuid = |at: &usize| systems[*at].told.uuid.as_str();
        let is_own = |at: &usize| {
            let same = meant.iter().filter(|other| uuid(other).eq_ignore_ascii_case(uuid(at)));
            is_uuid(uuid(at)) && same.count() == 1
        };
        let shown = meant.iter().map(|at| {
            let path = self.foreign(&systems[*at].path);
            // A UUID looks like a secret and would be hidden, but the user needs it to register the server.
            match uuid(at) {
                uuid if is_uuid(uuid) => format!("{path} (UUID {uuid})"),
                _ => format!("{path} (no UUID)"),
            }
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        let wanted = wanted.map_or("", |wanted| wanted.name).into();
        let cure = match meant.iter().filter(|at| is_own(at)).count() {
            0 => {
                "none has a UUID of its own either: give each a serial number or a UUID with the maker's tool, and \
                 register the server by that"
            }
            count if count == meant.len() => {
                "register the server by the UUID of the one that is meant"
            }
            _ => {
                "register the server by the UUID of the one that is meant; one without a UUID of its own needs a \
                 serial number of its own, with the maker's tool"
            }
        };
        Error::Ambiguous { wanted, systems: shown, cure }
    }

    fn no_machine(
        &self,
        systems: &[System],
        unread: Vec<Unread>,
        wanted: Option<Wanted<'_>>,
    ) -> Error {
        let is_silent = |one: &Unread| matches!(one.error, Error::Unreachable { .. });
        if systems.is_empty() && (unread.len() == 1 || unread.iter().all(is_silent)) {
            // This error is the actual cause.
            let missing = Error::Unsupported("a computer system");
            return unread.into_iter().next().map_or(missing, |one| one.error);
        }
        let found = systems.iter().map(|system| match system.has_any() {
            true => format!("{} ({})", system.path, system.told),
            false => {
                format!(
                    "{} ({}; neither reset nor boot settings, so no machine to boot)",
                    system.path, system.told
                )
            }
        });
        let mut found = found.collect::<Vec<_>>().join(", ");
        if found.is_empty() {
            found = "none".into();
        }
        let found = self.foreign(&found);
        let wanted = wanted.map_or("", |wanted| wanted.name).to_owned();
        if unread.is_empty() {
            return Error::WrongMachine { wanted, found };
        }
        let shown = unread.iter().map(|one| format!("{}: {}", one.path, reason(&one.error)));
        Error::Unread {
            wanted,
            found,
            unread: self.foreign(&shown.collect::<Vec<_>>().join(", ")),
            is_transient: unread.iter().any(|one| one.error.is_transient()),
            retry_after: unread.iter().filter_map(|one| one.error.retry_after()).max(),
        }
    }

    /// Reads what the system only links: the reset types of an action that has them in another resource, and boot
    /// targets that only the future settings have.
    async fn add_linked(
        &self,
        machine: &mut Machine,
        system: &Value,
        notes: &mut Notes,
    ) -> Result<(), Error> {
        let reset = &system["Actions"]["#ComputerSystem.Reset"];
        if machine.reset_types.is_empty()
            && let Some(path) = reset["@Redfish.ActionInfo"].as_str()
        {
            match self.read_optional(path).await? {
                Ok(info) => machine.reset_types = allowable(&info.body, "ResetType"),
                Err(error) => notes.add(self, path, &error),
            }
        }
        let lists_cd = machine.lists_target("Cd") || machine.lists_target("UsbCd");
        let is_needed = !lists_cd || !machine.slots.iter().any(Slot::takes_cd);
        let Some(path) = machine.settings_path.clone().filter(|_| is_needed) else { return Ok(()) };
        match self.read_optional(&path).await? {
            Ok(settings) => {
                machine.settings_targets = targets_of(&settings.body);
                machine.has_http_boot = has_http_boot(system, &settings.body, machine.profile);
            }
            Err(error) => notes.add(self, &path, &error),
        }
        Ok(())
    }

    /// The manager of a system: the first linked one that can be read, or the BMC's first manager. A BMC without a
    /// readable manager can still be used.
    async fn manager_of(
        &self,
        root: &Value,
        system: &Value,
        notes: &mut Notes,
    ) -> Result<Option<Member>, Error> {
        let linked = system["Links"]["ManagedBy"].as_array().into_iter().flatten();
        let mut paths: Vec<String> = linked.filter_map(links::of).take(MEMBERS_MAX).collect();
        if paths.is_empty() {
            let Some(managers) = links::of(&root["Managers"]) else { return Ok(None) };
            match self.read_optional(&managers).await? {
                Ok(answer) => {
                    let members = answer.body["Members"].as_array().cloned().unwrap_or_default();
                    paths = members.iter().filter_map(links::of).take(MEMBERS_MAX).collect();
                }
                Err(error) => notes.add(self, &managers, &error),
            }
        }
        for path in paths {
            match self.read_optional(&path).await? {
                Ok(answer) => return Ok(Some(Member { path, allow: None, body: answer.body })),
                Err(error) => notes.add(self, &path, &error),
            }
        }
        Ok(None)
    }

    /// The media slots of a system: its own, or those of its managers, until one that accepts CDs is found.
    async fn slots_of(
        &self,
        root: &Value,
        system_path: &str,
        system: &Value,
        manager: Option<&Member>,
        is_only_one: bool,
        notes: &mut Notes,
    ) -> Result<Vec<Slot>, Error> {
        let is_enough =
            |slots: &[Slot]| slots.iter().any(|slot| slot.takes_cd() && slot.has_action());
        let mut slots = self.slots(&system["VirtualMedia"], notes).await?;
        if is_enough(&slots) {
            return Ok(slots);
        }
        // Before Redfish 2020.4 virtual media belonged to managers.
        let linked = system["Links"]["ManagedBy"].as_array().into_iter().flatten();
        for path in linked.filter_map(links::of).take(MEMBERS_MAX) {
            let body = match manager.filter(|manager| links::is_same(&manager.path, &path)) {
                Some(manager) => manager.body.clone(),
                None if notes.has(&path) => continue,
                None => match self.read_optional(&path).await? {
                    Ok(answer) => answer.body,
                    Err(error) => {
                        notes.add(self, &path, &error);
                        continue;
                    }
                },
            };
            slots.extend(self.slots(&body["VirtualMedia"], notes).await?);
        }
        if is_enough(&slots) {
            return Ok(slots);
        }
        // Some BMCs do not link them. A manager of another system in the same chassis must not be used.
        let Members { read, unread } =
            self.optional_members(&root["Managers"], notes, |read| !read.is_empty()).await?;
        for Unread { path, error } in unread {
            notes.add(self, &path, &error);
        }
        for Member { body: manager, .. } in read {
            let servers = manager["Links"]["ManagerForServers"].as_array();
            let is_ours = servers.map_or(is_only_one, |servers| {
                servers
                    .iter()
                    .filter_map(links::of)
                    .any(|server| links::is_same(&server, system_path))
            });
            if is_ours {
                slots.extend(self.slots(&manager["VirtualMedia"], notes).await?);
            }
        }
        let mut seen = BTreeSet::new();
        slots.retain(|slot| seen.insert(links::key(&slot.path).to_owned()));
        Ok(slots)
    }

    async fn slots(&self, collection: &Value, notes: &mut Notes) -> Result<Vec<Slot>, Error> {
        let slot = |member: &Member| slot_of(&member.path, &member.body, member.allow.as_deref());
        let is_enough = |read: &[Member]| read.iter().any(|member| slot(member).takes_cd());
        let Members { read, unread } = self.optional_members(collection, notes, is_enough).await?;
        for Unread { path, error } in unread {
            notes.add(self, &path, &error);
        }
        Ok(read.iter().map(slot).collect())
    }

    /// The members of a collection. If the collection cannot be read, that is noted and the list is empty.
    async fn optional_members(
        &self,
        collection: &Value,
        notes: &mut Notes,
        is_enough: impl Fn(&[Member]) -> bool,
    ) -> Result<Members, Error> {
        let Some(path) = links::of(collection).filter(|path| !notes.has(path)) else {
            return Ok(Members::default());
        };
        match self.read_optional(&path).await? {
            Ok(answer) => self.members_of(&answer.body, SIBLING_PATIENCE, is_enough).await,
            Err(error) => {
                notes.add(self, &path, &error);
                Ok(Members::default())
            }
        }
    }
}

/// A system of the BMC, as it was read.
struct System {
    path: String,
    body: Arc<Value>,
    told: Told,
}

impl System {
    fn has_reset(&self) -> bool {
        self.body["Actions"]["#ComputerSystem.Reset"]["target"].is_string()
    }

    fn has_boot(&self) -> bool {
        self.body["Boot"].as_object().is_some_and(|boot| !boot.is_empty())
    }

    /// It can be reset, and its boot settings can be changed.
    fn has_all(&self) -> bool {
        self.has_reset() && self.has_boot() && !self.is_part()
    }

    /// It can be reset or has boot settings. A GPU tray or a baseboard has neither.
    fn has_any(&self) -> bool {
        (self.has_reset() || self.has_boot()) && !self.is_part()
    }

    /// It reports that it is a card within a machine.
    fn is_part(&self) -> bool {
        matches!(self.body["SystemType"].as_str(), Some("DPU"))
    }
}

/// The resources that could not be read and are not required.
#[derive(Default)]
struct Notes {
    paths: Vec<String>,
    texts: Vec<String>,
    may_pass: bool,
}

impl Notes {
    fn add(&mut self, bmc: &Bmc, path: &str, error: &Error) {
        self.paths.push(path.to_owned());
        self.texts.push(bmc.foreign(&format!("{path} cannot be read ({})", reason(error))));
        self.may_pass |= error.is_transient();
    }

    fn has(&self, path: &str) -> bool {
        self.paths.iter().any(|known| links::is_same(known, path))
    }
}

/// The text of an error, without the request's path, which is shown beside it.
fn reason(error: &Error) -> String {
    match error {
        Error::Status { status, detail, .. } if detail.is_empty() => format!("HTTP {status}"),
        Error::Status { status, detail, .. } => format!("HTTP {status}, {detail}"),
        Error::BadAnswer { why, .. } => why.clone(),
        error => error.to_string(),
    }
}

/// Whether the text has exactly the form of a UUID (RFC 9562, 4). The secret of a media URL does not.
fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The values of a parameter in an `ActionInfo` resource.
fn allowable(info: &Value, parameter: &str) -> Vec<String> {
    let parameters = info["Parameters"].as_array().into_iter().flatten();
    let found = parameters.into_iter().find(|one| one["Name"] == parameter);
    found.map(|found| texts(&found["AllowableValues"])).unwrap_or_default()
}
