// SPDX-License-Identifier: AGPL-3.0-or-later
//! The progress of a boot and the event logs, as a BMC reports them.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::{Bmc, Error, Machine, links};

/// Most log services that are read: a system has an event log, a manager two or three.
const SERVICES_MAX: usize = 8;
/// Most pages of one log. iDRAC has 50 entries on a page, newest first.
const PAGES_MAX: usize = 8;
/// Most entries of one log that are read one by one, if its collection has links only.
const LINKS_MAX: usize = 32;
/// Most entries that are returned, the newest ones.
const ENTRIES_MAX: usize = 200;

/// `ComputerSystem.BootProgress`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootProgress {
    /// Such as `MemoryInitializationStarted` or `OSRunning`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oem_state: Option<String>,
    /// By the BMC's clock, as the BMC writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// One entry of an event log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Path of the log.
    pub log: String,
    /// By the BMC's clock, as the BMC writes it.
    pub created: String,
    pub severity: String,
    pub message_id: String,
    pub message: String,
}

/// Entries from this moment on, by the BMC's own clock.
struct Since(Option<Timestamp>);

impl Since {
    /// An entry without a readable time is kept: too many entries are better than none.
    fn covers(&self, entry: &LogEntry) -> bool {
        match (self.0, entry.created.parse::<Timestamp>()) {
            (Some(since), Ok(created)) => created >= since,
            _ => true,
        }
    }
}

impl Bmc {
    /// The progress of the boot. `None` if the BMC does not report it.
    pub async fn boot_progress(&self, machine: &Machine) -> Result<Option<BootProgress>, Error> {
        let system = self.get(&machine.system_path).await?.body;
        let progress = &system["BootProgress"];
        let text = |name: &str| progress[name].as_str().map(|text| self.foreign(text));
        Ok(text("LastState").map(|state| BootProgress {
            state,
            oem_state: text("OemLastState"),
            at: text("LastStateTime"),
        }))
    }

    /// Entries since `since` in the logs of the machine and of its BMC, oldest first within each log. A BMC's clock
    /// may be wrong, so its current time is compared with `now`.
    pub async fn log_entries(
        &self,
        machine: &Machine,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<LogEntry>, Error> {
        let system = self.get(&machine.system_path).await?.body;
        let manager = match &machine.manager_path {
            Some(path) => self.get(path).await?.body,
            None => Arc::default(),
        };
        let clock = manager["DateTime"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        let ahead = clock.map_or(SignedDuration::ZERO, |clock| clock.duration_since(now));
        let since = Since(since.checked_add(ahead).ok());
        let mut services: Vec<String> = Vec::new();
        for owner in [system, manager] {
            let Some(path) = links::of(&owner["LogServices"]) else { continue };
            let body = self.get(&path).await?.body;
            let members = body["Members"].as_array().into_iter().flatten();
            for service in members.filter_map(links::of).take(SERVICES_MAX) {
                if !services.iter().any(|known| links::is_same(known, &service)) {
                    services.push(service);
                }
            }
        }
        let mut entries = Vec::new();
        for service in services.into_iter().take(SERVICES_MAX) {
            match self.log(&service, &since).await {
                Ok(mut log) => {
                    log.sort_by_key(|entry| entry.created.parse::<Timestamp>().ok());
                    entries.extend(log.split_off(log.len().saturating_sub(ENTRIES_MAX)));
                }
                // One unreadable log does not hide the others.
                Err(Error::Status { status: 400..=499, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries.split_off(entries.len().saturating_sub(ENTRIES_MAX)))
    }

    async fn log(&self, service: &str, since: &Since) -> Result<Vec<LogEntry>, Error> {
        let service_body = self.get(service).await?.body;
        let mut next = links::of(&service_body["Entries"]);
        let (mut found, mut seen, mut links_left) = (Vec::new(), BTreeSet::new(), LINKS_MAX);
        for _page in 0..PAGES_MAX {
            let Some(path) = next.filter(|path| seen.insert(links::key(path).to_owned())) else {
                break;
            };
            let body = self.get(&path).await?.body;
            let mut page = Vec::new();
            for member in body["Members"].as_array().into_iter().flatten() {
                let is_link = member["Message"].is_null() && member["Created"].is_null();
                match links::of(member) {
                    Some(path) if is_link && links_left > 0 => {
                        links_left -= 1;
                        page.push(self.entry(service, &self.get(&path).await?.body));
                    }
                    _ if is_link => {}
                    _ => page.push(self.entry(service, member)),
                }
            }
            // If the newest come first, the pages after an entry that is too old are older still.
            let created = |entry: Option<&LogEntry>| entry?.created.parse::<Timestamp>().ok();
            let is_newest_first = created(page.first()) > created(page.last());
            let is_over = is_newest_first && page.last().is_some_and(|entry| !since.covers(entry));
            found.extend(page.into_iter().filter(|entry| since.covers(entry)));
            next = if is_over { None } else { self.next_page(&path, &body) };
        }
        Ok(found)
    }

    /// The next page, at the host of this one: some BMCs write a host name that only they can resolve.
    fn next_page(&self, page: &str, body: &Value) -> Option<String> {
        let next = body["Members@odata.nextLink"].as_str()?;
        links::path_at_home(&self.same_authority(page).ok()?, next)
    }

    fn entry(&self, log: &str, body: &Value) -> LogEntry {
        let text = |name: &str| self.foreign(body[name].as_str().unwrap_or_default());
        LogEntry {
            log: self.foreign(log),
            created: text("Created"),
            severity: text("Severity"),
            message_id: text("MessageId"),
            message: text("Message"),
        }
    }
}
