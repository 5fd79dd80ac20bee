// SPDX-License-Identifier: AGPL-3.0-or-later
//! The transcript of requests to a BMC and its responses, for troubleshooting: limited in size and without secrets.
//! Logins are not included. Bodies contain no password, token or key, and no run of characters that may be the secret
//! of a media URL.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::Error;
use crate::secrets::Secrets;

/// Most requests that are kept, the newest ones. A visit without waiting has about thirty.
const EXCHANGES_MAX: usize = 200;
/// Longest text of one body.
const BODY_CHARS_MAX: usize = 4096;
/// Deepest level that is shown.
const DEPTH_MAX: usize = 16;
/// Parts of the names of secret properties, in lower case.
const SECRET_NAMES: &[&str] =
    &["password", "token", "secret", "credential", "privatekey", "apikey"];

/// One request and its result.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Exchange {
    /// Milliseconds since 1970 (UTC).
    pub at_ms: u64,
    pub method: String,
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// `None`: there was no HTTP response.
    pub status: Option<u16>,
    /// `None`: the caller did not wait for the response.
    pub millis: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often the same request got the same response directly afterwards.
    #[serde(skip_serializing_if = "is_none_more")]
    pub repeated: u32,
}

fn is_none_more(repeated: &u32) -> bool {
    *repeated == 0
}

/// The newest exchanges.
#[derive(Default)]
pub(crate) struct Transcript {
    exchanges: VecDeque<Exchange>,
    /// Number of the first exchange that is kept.
    first: u64,
    /// Secrets that are removed from all exchanges.
    secrets: Arc<Secrets>,
}

/// A request in progress.
pub(crate) struct Begun {
    number: u64,
    at: Instant,
}

impl Transcript {
    pub fn without(secrets: Arc<Secrets>) -> Transcript {
        Transcript { secrets, ..Transcript::default() }
    }

    pub fn begin(&mut self, method: &str, path: &str, body: Option<&Value>) -> Begun {
        if self.exchanges.len() == EXCHANGES_MAX {
            self.exchanges.pop_front();
            self.first += 1;
        }
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.exchanges.push_back(Exchange {
            at_ms: millis(since_1970.unwrap_or_default()),
            method: method.to_owned(),
            path: self.secrets.hide(path).into_owned(),
            request: body.map(|body| shown(body, &self.secrets)),
            status: None,
            millis: None,
            answer: None,
            error: None,
            repeated: 0,
        });
        Begun { number: self.first + self.exchanges.len() as u64 - 1, at: Instant::now() }
    }

    pub fn end(&mut self, begun: &Begun, result: Result<(u16, &Value), &Error>) {
        let index =
            begun.number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(exchange) = index.and_then(|index| self.exchanges.get_mut(index)) else { return };
        exchange.millis = Some(millis(begun.at.elapsed()));
        match result {
            Ok((status, body)) => {
                exchange.status = Some(status);
                exchange.answer = (!body.is_null()).then(|| shown(body, &self.secrets));
            }
            Err(error) => {
                (exchange.status, exchange.answer) = match error {
                    Error::Status { status, body, .. } => {
                        (Some(*status), body.as_deref().map(str::to_owned))
                    }
                    Error::Unauthorized { .. } => (Some(401), None),
                    _ => (None, None),
                };
                exchange.error = Some(self.secrets.hide(&error.to_string()).into_owned());
            }
        }
        self.fold();
    }

    /// Combines identical exchanges, so that polling a state takes one entry.
    fn fold(&mut self) {
        let count = self.exchanges.len();
        let [.., before, last] = &mut self.exchanges.make_contiguous()[..count] else { return };
        let is_same = before.method == last.method
            && before.path == last.path
            && before.request == last.request
            && before.status == last.status
            && before.answer == last.answer
            && before.error == last.error;
        if is_same && last.millis.is_some() && before.millis.is_some() {
            before.repeated += 1;
            self.exchanges.pop_back();
        }
    }

    /// Removes and returns the exchanges since the last call, oldest first.
    pub fn take(&mut self) -> Vec<Exchange> {
        let taken: Vec<Exchange> = self.exchanges.drain(..).collect();
        self.first += taken.len() as u64;
        taken
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A body as text, without secrets.
pub(crate) fn shown(body: &Value, secrets: &Secrets) -> String {
    let text =
        serde_json::to_string(&Redacted { value: body, depth: 0, secrets }).unwrap_or_default();
    match text.char_indices().nth(BODY_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

/// Serializes a value without secrets, in one pass, because every response of every BMC is processed here.
struct Redacted<'a> {
    value: &'a Value,
    depth: usize,
    secrets: &'a Secrets,
}

impl<'a> Redacted<'a> {
    fn within(&self, value: &'a Value) -> Redacted<'a> {
        Redacted { value, depth: self.depth + 1, secrets: self.secrets }
    }
}

impl Serialize for Redacted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.depth > DEPTH_MAX {
            return serializer.serialize_str("…");
        }
        match self.value {
            Value::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    // Numbers and booleans, such as MinPasswordLength, reveal no secret.
                    let hides = (value.is_string() || value.is_array()) && is_secret(name);
                    map.serialize_key(&self.secrets.hide(name))?;
                    match hides {
                        true => map.serialize_value("***")?,
                        false => map.serialize_value(&self.within(value))?,
                    }
                }
                map.end()
            }
            Value::Array(values) => {
                serializer.collect_seq(values.iter().map(|value| self.within(value)))
            }
            Value::String(text) => {
                serializer.serialize_str(&without_login(&self.secrets.hide(text)))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => self.value.serialize(serializer),
        }
    }
}

/// Whether a property with this name may be a secret.
fn is_secret(name: &str) -> bool {
    let has = |text: &[u8], word: &&str| {
        text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    match name.is_ascii() {
        true => SECRET_NAMES.iter().any(|word| has(name.as_bytes(), word)),
        // The lower case of some letters beyond ASCII is an ASCII letter.
        false => SECRET_NAMES.iter().any(|word| has(name.to_lowercase().as_bytes(), word)),
    }
}

/// A URL without the user and the password.
fn without_login(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else { return text.into() };
    let end = rest.find(['/', '?', '#', ' ']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_opens_something_is_not_shown() {
        let secret = "0123456789abcdef".repeat(3);
        let body = json!({
            "UserName": "admin", "Password": "canary", "X-Auth-Token": "canary",
            "Keys": {"ApiKey": ["canary"], "To\u{212a}en": "canary"}, "MinPasswordLength": 8,
            "Image": format!("https://canary:canary@c:8443/m/{secret}/task.iso")
        });
        assert_eq!(
            shown(&body, &Secrets::default()),
            json!({
                "UserName": "admin", "Password": "***", "X-Auth-Token": "***",
                "Keys": {"ApiKey": "***", "To\u{212a}en": "***"}, "MinPasswordLength": 8,
                "Image": "https://***@c:8443/m/***/task.iso"
            })
            .to_string()
        );
    }

    #[test]
    fn a_transcript_is_bounded_and_folds_what_is_polled() {
        let mut transcript = Transcript::default();
        let long = json!({"text": "é ".repeat(BODY_CHARS_MAX)});
        for number in 0..EXCHANGES_MAX as u64 + 5 {
            let path = format!("/{number}");
            for _ in 0..3 {
                let begun = transcript.begin("GET", &path, None);
                transcript.end(&begun, Ok((200, &long)));
            }
        }
        let dropped = transcript.begin("POST", "/x", Some(&json!({"Password": "p"})));
        let taken = transcript.take();
        assert_eq!(taken.len(), EXCHANGES_MAX);
        let last = &taken[EXCHANGES_MAX - 1];
        assert_eq!((last.path.as_str(), last.status, last.millis), ("/x", None, None));
        assert_eq!(last.request.as_deref(), Some(r#"{"Password":"***"}"#));
        assert!(taken[0].answer.as_ref().unwrap().len() < 3 * BODY_CHARS_MAX);
        assert!(taken[..EXCHANGES_MAX - 1].iter().all(|exchange| exchange.repeated == 2));
        // A late response belongs to an exchange that is no longer kept.
        transcript.end(&dropped, Ok((200, &Value::Null)));
        assert_eq!(transcript.take(), []);
    }
}
