// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a BMC shows, recorded as a file that can be passed on and played again: by reads only, in bounds,
//! and without what tells whose machine it is.
//!
//! ```text
//! walk ──resources──▶ redact ──▶ document  {path: resource}
//!                        ├── properties: what a property is by its name
//!                        ├── forms: what stands in a text, by its form
//!                        └── names: which replacement stands for which original
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

/// Of the file's own description. Members that begin with `@` are no resources.
const ABOUT: &str = "@shoal.capture";
/// A response that is more than a document.
const STATUS: &str = "@shoal.status";
const BODY: &str = "@shoal.body";
const HEADERS: &str = "@shoal.headers";
/// Of a page for people. It is cut when nothing is in it that a cut would hide from the redaction.
const TEXT_CHARS_MAX: usize = 4 << 10;
/// Of this form of the file.
const VERSION: u64 = 1;

impl Bmc {
    /// The file. Nothing is changed at the BMC; a resource that cannot be read is recorded with its status.
    pub async fn capture(&self, limits: &CaptureLimits) -> Result<Value, Error> {
        let captured = self.walk(limits).await?;
        let host = self.transport.base.host_str().unwrap_or_default().to_owned();
        let (username, secrets) =
            (self.session.username().to_owned(), self.transport.secrets.clone());
        // Megabytes of text are searched: that is no work for a thread on which others wait.
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
