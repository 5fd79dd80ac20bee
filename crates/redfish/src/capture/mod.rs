// SPDX-License-Identifier: AGPL-3.0-or-later
//! Records the resources of a BMC as a file that can be shared and replayed: with reads only, within limits, and
//! without anything that identifies the machine.
//!
//! ```text
//! walk ──resources──▶ redact ──▶ document  {path: resource}
//!                        ├── properties: the meaning of a property, by its name
//!                        ├── forms: what a text contains, by its form
//!                        └── names: the replacement of each original
//! ```

mod captured;
mod forms;
mod names;
mod properties;
mod redact;
mod walk;

use serde_json::{Map, Value, json};

use crate::bmc::Bmc;
use crate::error::Error;
use captured::{Captured, Recorded};

pub use walk::CaptureLimits;

/// The member with the description of the file. Members that begin with `@` are not resources.
const ABOUT: &str = "@shoal.capture";
/// Members of a response that is not just a document with status 200.
const STATUS: &str = "@shoal.status";
const BODY: &str = "@shoal.body";
const HEADERS: &str = "@shoal.headers";
/// Longest text of a page that is not JSON. It is cut after redaction, so that a cut cannot hide a name from it.
const TEXT_CHARS_MAX: usize = 4 << 10;
/// The version of the file format.
const VERSION: u64 = 1;

impl Bmc {
    /// Creates the file. Nothing is changed at the BMC. A resource that cannot be read is recorded with its status.
    pub async fn capture(&self, limits: &CaptureLimits) -> Result<Value, Error> {
        let captured = self.walk(limits).await?;
        let host = self.transport.base.host_str().unwrap_or_default().to_owned();
        let (username, secrets) =
            (self.session.username().to_owned(), self.transport.secrets.clone());
        // Searching megabytes of text would block a thread that serves other requests.
        let redacted = tokio::task::spawn_blocking(move || {
            let hidden = |text: &str| secrets.hide_own(text).into_owned();
            document(redact::redacted(captured, &host, &username, &hidden))
        });
        redacted.await.map_err(|error| {
            let why = format!("what was read cannot be redacted: {error}");
            Error::BadAnswer { what: "the capture".into(), why }
        })
    }
}

fn document(captured: Captured) -> Value {
    let about = json!({
        "version": VERSION,
        "resources": captured.resources.len(),
        "is_whole": captured.notes.is_empty(),
        "notes": captured.notes,
    });
    let mut document = Map::from_iter([(ABOUT.to_owned(), about)]);
    for Recorded { path, status, body, headers } in captured.resources {
        let body = match body {
            Value::String(text) => text.chars().take(TEXT_CHARS_MAX).collect::<String>().into(),
            body => body,
        };
        let value = match (status, headers.as_slice()) {
            (200, []) if body.is_object() => body,
            _ => {
                let headers: Map<String, Value> =
                    headers.into_iter().map(|(name, value)| (name, value.into())).collect();
                json!({STATUS: status, BODY: body, HEADERS: headers})
            }
        };
        document.insert(path, value);
    }
    Value::Object(document)
}
