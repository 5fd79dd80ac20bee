// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads what a BMC links, from the service root on: what a provisioner needs first, each resource once,
//! slowly, and in bounds.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use reqwest::{Method, header};
use serde_json::Value;
use tokio::time::Instant;
use url::{Position, Url};

use super::captured::{Captured, Recorded};
use crate::answer::bounded;
use crate::bmc::Bmc;
use crate::document::{Unusable, parse, trimmed};
use crate::error::Error;
use crate::links;

impl Captured {
    fn note(&mut self, note: String) {
        // The last one says that there are more.
        match self.notes.len().cmp(&NOTES_MAX) {
            Ordering::Less => self.notes.push(note),
            Ordering::Equal => self.notes.push("there is more that was not read".into()),
            Ordering::Greater => {}
        }
    }
}

/// How much is read, and how fast.
#[derive(Debug, Clone)]
pub struct CaptureLimits {
    pub resources: usize,
    /// Of all bodies.
    pub bytes: usize,
    pub time: Duration,
    /// Between two requests.
    pub pause: Duration,
}

impl Default for CaptureLimits {
    fn default() -> CaptureLimits {
        CaptureLimits {
            // Without logs, sensors and schemas a large server has some hundred.
            resources: 2000,
            // Parsed they take some ten times as much memory.
            bytes: 8 << 20,
            // Jobs of the same BMC wait meanwhile.
            time: Duration::from_secs(5 * 60),
            // A BMC serves one or two requests a second, and has other clients.
            pause: Duration::from_millis(100),
        }
    }
}

const ROOT: &str = "/redfish/v1/";
/// After so many requests without any response the BMC is left alone.
const SILENCES_MAX: usize = 3;
/// There may be thousands.
const NOTES_MAX: usize = 50;
/// Sessions that end while the tree is read.
const LOGINS_MAX: usize = 3;
/// Links that are kept in mind: some times more than are read.
const LINKS_MAX: usize = 20_000;
/// Of one link; the longest of real BMCs have some 200.
const LINK_BYTES_MAX: usize = 1 << 10;

/// Segments of paths below which nothing is read: what is secret, what names people, and what is huge and the
/// same everywhere. What is below `Actions` is not for reading.
const LEFT_OUT: &[&str] = &[
    "AccountService",
    "Accounts",
    "Actions",
    "ActiveDirectory",
    "Certificates",
    "CertificateService",
    "ComponentIntegrity",
    "Dump",
    "Entries",
    "EventService",
    "ExternalAccountProviders",
    "JobService",
    "Jobs",
    "JsonSchemas",
    "KeyService",
    "Keys",
    "LDAP",
    "LicenseService",
    "Licenses",
    "Registries",
    "Roles",
    "Schemas",
    "SecureBootDatabases",
    "Sessions",
    "Subscriptions",
    "Tasks",
    "TelemetryService",
];
/// Segments of what is read when the rest is there: many resources, of which no job needs one.
const LATER: &[&str] = &[
    "Assembly",
    "FirmwareInventory",
    "Memory",
    "NetworkAdapters",
    "PCIeDevices",
    "PCIeSlots",
    "Power",
    "PowerSubsystem",
    "Processors",
    "Sensors",
    "SoftwareInventory",
    "Storage",
    "Thermal",
    "ThermalSubsystem",
    "SimpleStorage",
];

/// What is still to be read.
struct Queue {
    base: Url,
    soon: VecDeque<String>,
    later: VecDeque<String>,
    known: BTreeSet<String>,
    /// Those that nobody keeps in mind: there are too many.
    left: usize,
}

impl Queue {
    fn of(base: &Url) -> Queue {
        let (soon, later, known) = Default::default();
        Queue { base: base.clone(), soon, later, known, left: 0 }
    }

    fn add(&mut self, link: &str) {
        // A part of a resource is read with it.
        let link = link.split('#').next().unwrap_or_default();
        if link.len() > LINK_BYTES_MAX {
            return;
        }
        let Some(url) = links::within(&self.base, link).ok().filter(is_read) else { return };
        // As the BMC writes it, for the file is searched for that.
        let path = if link.starts_with("/redfish") { link } else { &url[Position::BeforePath..] };
        let key = links::key(path);
        if self.known.contains(key) {
            return;
        }
        if self.known.len() >= LINKS_MAX {
            self.left += 1;
            return;
        }
        self.known.insert(key.to_owned());
        let queue = if has_segment(&url, LATER) { &mut self.later } else { &mut self.soon };
        queue.push_back(path.to_owned());
    }

    fn next(&mut self) -> Option<String> {
        self.soon.pop_front().or_else(|| self.later.pop_front())
    }

    fn len(&self) -> usize {
        self.soon.len() + self.later.len() + self.left
    }
}

/// Whether it is a resource, and one that may be read. Dots in a path have been resolved.
fn is_read(url: &Url) -> bool {
    let is_resource = url.path() == "/redfish" || url.path().starts_with("/redfish/");
    is_resource && !has_segment(url, LEFT_OUT)
}

fn has_segment(url: &Url, list: &[&str]) -> bool {
    let is_listed = |part: &str| list.iter().any(|word| part.eq_ignore_ascii_case(word));
    url.path_segments().is_some_and(|mut parts| parts.any(is_listed))
}

/// One response.
struct Got {
    recorded: Recorded,
    bytes: usize,
}

impl Bmc {
    pub(super) async fn walk(&self, limits: &CaptureLimits) -> Result<Captured, Error> {
        let deadline = Instant::now() + limits.time;
        let mut queue = Queue::of(&self.transport.base);
        queue.add(ROOT);
        let mut captured = Captured::default();
        let (mut bytes, mut silences, mut logins) = (0, 0, 0);
        while let Some(path) = queue.next() {
            let full = if captured.resources.len() >= limits.resources {
                Some(format!("{} resources", limits.resources))
            } else if bytes >= limits.bytes {
                Some(format!("{} bytes", limits.bytes))
            } else if Instant::now() >= deadline {
                Some(format!("{} s", limits.time.as_secs()))
            } else {
                None
            };
            if let Some(limit) = full {
                let left = queue.len() + 1;
                captured.note(format!("the limit of {limit} was reached; {left} links are left"));
                break;
            }
            match self.record(&path, &mut logins, deadline).await {
                Ok(got) => {
                    silences = 0;
                    bytes += got.bytes;
                    for link in linked(&got.recorded.body) {
                        queue.add(&link);
                    }
                    captured.resources.push(got.recorded);
                }
                // Without its root there is nothing.
                Err(error) if path == ROOT => return Err(error),
                Err(error @ (Error::Unauthorized { .. } | Error::CertificateChanged { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    silences += usize::from(matches!(error, Error::Unreachable { .. }));
                    let (what, why) =
                        (format!("{path} cannot be read"), self.foreign(&error.to_string()));
                    captured.note(format!("{what}: {why}"));
                    if silences >= SILENCES_MAX {
                        captured.note("the BMC did not respond any more".into());
                        break;
                    }
                }
            }
            tokio::time::sleep(limits.pause).await;
        }
        if queue.left > 0 {
            captured.note(format!("{} links were left out: there are too many", queue.left));
        }
        Ok(captured)
    }

    /// One GET, whatever its status is. A session that ended is opened anew.
    async fn record(
        &self,
        path: &str,
        logins: &mut usize,
        deadline: Instant,
    ) -> Result<Got, Error> {
        let what = format!("GET {path}");
        let url = self.same_authority(path)?;
        let mut may_log_in = true;
        loop {
            // A login is not given up half-way: its session would stay.
            let read = tokio::time::timeout_at(deadline, self.read_once(&what, path, &url)).await;
            let got = read.unwrap_or_else(|_late| {
                let why = "the time was over".to_owned();
                Err(Error::BadAnswer { what: what.clone(), why })
            })?;
            let is_session = self.session.is_open().await;
            match got.recorded.status {
                // Accounts are locked after a few of these.
                401 if !is_session => {
                    return Err(Error::Unauthorized { detail: format!("{what}: HTTP 401") });
                }
                401 if may_log_in && *logins < LOGINS_MAX => {
                    (may_log_in, *logins) = (false, *logins + 1);
                    self.log_in().await?;
                }
                _ => return Ok(got),
            }
        }
    }

    async fn read_once(&self, what: &str, path: &str, url: &Url) -> Result<Got, Error> {
        let credentials = self.session.credentials().await?;
        let finish = |request: reqwest::RequestBuilder| credentials.put(request);
        let sent = self.transport.travel(what, Method::GET, url.clone(), self.budgets.read, finish);
        let response = sent.await?;
        if !is_read(response.url()) {
            let why = "it was redirected to what is not recorded".to_owned();
            return Err(Error::BadAnswer { what: what.into(), why });
        }
        let status = response.status().as_u16();
        let named = |name: header::HeaderName| {
            let value = response.headers().get(&name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        };
        let mut headers: Vec<_> = [header::ALLOW, header::ETAG, header::RETRY_AFTER]
            .into_iter()
            .filter_map(named)
            .collect();
        let kind = named(header::CONTENT_TYPE);
        let bytes = bounded(what, response, self.budgets.grace).await?;
        let plain = trimmed(&bytes);
        let body = match parse(plain) {
            Ok(body) => body,
            Err(Unusable::Bomb(why)) => return Err(Error::BadAnswer { what: what.into(), why }),
            Err(Unusable::NotJson(_)) => {
                headers.extend(kind);
                String::from_utf8_lossy(plain).into_owned().into()
            }
        };
        let recorded = Recorded { path: path.to_owned(), status, body, headers };
        Ok(Got { recorded, bytes: bytes.len() })
    }
}

/// Every link of a document, in its order.
fn linked(body: &Value) -> Vec<String> {
    fn add(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let is_link = matches!(
                        name.as_str(),
                        "@odata.id"
                            | "@Redfish.ActionInfo"
                            | "Members@odata.nextLink"
                            | "@odata.nextLink"
                    );
                    match value {
                        Value::String(path) if is_link => found.push(path.clone()),
                        other => add(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| add(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    add(body, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_once_and_what_is_secret_huge_or_elsewhere_is_not() {
        let mut queue = Queue::of(&Url::parse("https://bmc.example/").unwrap());
        for path in [
            "/redfish/v1/Systems/1/Memory/2",
            "/redfish/v1/Systems/1",
            "/redfish/v1/Systems/1/",
            "https://bmc.example/redfish/v1/Systems/1",
            "https://bmc.example/redfish/v1/Managers/1",
            "https://elsewhere.example/redfish/v1/Systems/2",
            "http://bmc.example/redfish/v1/Systems/2",
            "https://bmc.example@elsewhere.example/redfish/v1/Systems/2",
            "//elsewhere.example/redfish/v1/Systems/2",
            "/redfish/v1/Chassis/1#/Links",
            "/redfish/v1/Chassis/1#/Power",
            "/redfish/v1/AccountService/Accounts/1",
            "/redfish/v1/accountservice/Accounts/1",
            "/redfish/v1/SessionService/Sessions/7",
            "/redfish/v1/SessionService/Sessions?$expand=.",
            "/redfish/v1/SessionService/../SessionService/Sessions/7",
            "/redfish/v1/Systems/1/LogServices/Log/Entries/9",
            "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            "/redfish/../admin/backup",
            "/redfish/%2e%2e/admin/backup",
            "/redfish\\..\\..\\admin",
            "/admin/backup",
            "/redfishes",
            "admin",
            "file:///etc/passwd",
            "",
            &format!("/redfish/v1/{}", "x".repeat(LINK_BYTES_MAX)),
        ] {
            queue.add(path);
        }
        let read: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        let expected = [
            "/redfish/v1/Systems/1",
            "/redfish/v1/Managers/1",
            "/redfish/v1/Chassis/1",
            "/redfish/v1/Systems/1/Memory/2",
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_a_bmc_links_without_end_is_not_kept_without_end() {
        let mut queue = Queue::of(&Url::parse("https://bmc.example/").unwrap());
        (0..LINKS_MAX + 7).for_each(|n| queue.add(&format!("/redfish/v1/{n}")));
        assert_eq!((queue.soon.len(), queue.left), (LINKS_MAX, 7));
    }
}
