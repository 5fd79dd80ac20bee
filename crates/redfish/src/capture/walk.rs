// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads the resources that a BMC links, starting from the service root: what a provisioner needs comes first, each
//! resource is read once, slowly, and within limits.

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
        // The last note says that there are more.
        match self.notes.len().cmp(&NOTES_MAX) {
            Ordering::Less => self.notes.push(note),
            Ordering::Equal => self.notes.push("there is more that was not read".into()),
            Ordering::Greater => {}
        }
    }
}

/// Limits on how much is read, and how fast.
#[derive(Debug, Clone)]
pub struct CaptureLimits {
    pub resources: usize,
    /// Total size of all bodies.
    pub bytes: usize,
    pub time: Duration,
    /// Pause between two requests.
    pub pause: Duration,
}

impl Default for CaptureLimits {
    fn default() -> CaptureLimits {
        CaptureLimits {
            // A large server has a few hundred without logs, sensors and schemas.
            resources: 2000,
            // Parsed, they take about ten times as much memory.
            bytes: 8 << 20,
            // Jobs on the same BMC wait during this time.
            time: Duration::from_secs(5 * 60),
            // A BMC serves one or two requests a second, and has other clients.
            pause: Duration::from_millis(100),
        }
    }
}

const ROOT: &str = "/redfish/v1/";
/// The walk ends after this many consecutive requests without a response.
const SILENCES_MAX: usize = 3;
/// Most notes in a capture; there could be thousands.
const NOTES_MAX: usize = 50;
/// Most times that a session may end during the walk.
const LOGINS_MAX: usize = 3;
/// Most links that are remembered: several times more than are read.
const LINKS_MAX: usize = 20_000;
/// Longest link; the longest on real BMCs have about 200 bytes.
const LINK_BYTES_MAX: usize = 1 << 10;

/// Path segments below which nothing is read: secrets, user data, and large data that is the same everywhere. Paths
/// below `Actions` cannot be read.
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
/// Path segments that are read last: many resources that no job needs.
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

/// The links that are still to be read.
struct Queue {
    base: Url,
    soon: VecDeque<String>,
    later: VecDeque<String>,
    known: BTreeSet<String>,
    /// Number of links that were dropped because of the limit.
    left: usize,
}

impl Queue {
    fn of(base: &Url) -> Queue {
        let (soon, later, known) = Default::default();
        Queue { base: base.clone(), soon, later, known, left: 0 }
    }

    fn add(&mut self, link: &str) {
        // A fragment is part of the resource and is read with it.
        let link = link.split('#').next().unwrap_or_default();
        if link.len() > LINK_BYTES_MAX {
            return;
        }
        let Some(url) = links::within(&self.base, link).ok().filter(is_read) else { return };
        // Kept as the BMC writes it, because a replay looks up this path in the file.
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

/// Whether the URL is a resource that may be read. Dot segments have been resolved.
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
                // Nothing can be read without the root.
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

    /// Sends one GET and records the response with any status. Logs in again if the session has ended.
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
            // Only the read has a deadline: an aborted login would leave its session open.
            let read = tokio::time::timeout_at(deadline, self.read_once(&what, path, &url)).await;
            let got = read.unwrap_or_else(|_late| {
                let why = "the time was over".to_owned();
                Err(Error::BadAnswer { what: what.clone(), why })
            })?;
            let is_session = self.session.is_open().await;
            match got.recorded.status {
                // Not repeated, because accounts are locked after a few failures.
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

/// All links in a document, in order.
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
