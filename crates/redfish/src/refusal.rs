// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads the messages of a BMC's refusal, in all the shapes that BMCs use, into one line and a cause.
//!
//! ```text
//! body ──▶ JSON ──▶ messages: @Message.ExtendedInfo, Messages, code and message   ──▶ words, cause
//!     └──▶ a page or plain text, without its tags                                 ──▶ words, cause
//! ```
//!
//! DSP0266 8.6 defines one shape, `error.@Message.ExtendedInfo` as a list. Other shapes in use: one object instead of
//! the list (ironcore-dev/metal-operator#997), `Messages` beside or without `error` and `MessageID` (iLO 4),
//! `MessageId` and arguments without a text (iLO 5 and 6), `error.code` alone (Supermicro), messages of one property
//! (`Image@Message.ExtendedInfo`), HTML (lighttpd in front of a BMC).

use serde_json::{Map, Value};

use crate::cause::Cause;
use crate::error::foreign;
use crate::messages::{of_key, of_words, words_of_key};
use crate::secrets::Secrets;
use crate::transcript::shown;

/// Most messages of one refusal that are reported.
const MESSAGES_MAX: usize = 3;
/// Most messages of one refusal that are read.
const READ_MAX: usize = 16;
/// Most arguments of one message.
const ARGS_MAX: usize = 8;
/// Longest MessageId; a longer value is a text.
const ID_CHARS_MAX: usize = 120;
/// How much of a body that is not JSON is kept as evidence.
const TEXT_CHARS_MAX: usize = 2000;
/// How much of such a body is searched for phrases. An error page has a few hundred characters.
const PAGE_CHARS_MAX: usize = 16 << 10;

/// A refusal, without secrets.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    /// The message on one line, limited in length. Empty if the BMC gives none.
    pub words: String,
    pub cause: Option<Cause>,
    /// The received body, limited in length. `None` if there is none.
    pub body: Option<Box<str>>,
}

/// Reads the body of an error response.
pub(crate) fn read(bytes: &[u8], secrets: &Secrets) -> Refusal {
    let plain = crate::document::trimmed(bytes);
    if plain.is_empty() {
        return Refusal::default();
    }
    let raw = match crate::document::parse(plain) {
        Ok(Value::String(text)) => text.into(),
        Ok(body) => {
            let (words, cause) = of_document(&body, secrets);
            return Refusal { words, cause, body: Some(shown(&body, secrets).into()) };
        }
        Err(_) => String::from_utf8_lossy(plain),
    };
    let raw = secrets.hide(&raw);
    let text = readable(&raw.chars().take(PAGE_CHARS_MAX).collect::<String>());
    let kept: String = raw.chars().take(TEXT_CHARS_MAX).collect();
    // Finds a key in truncated JSON, or in a log line.
    let by_key = || text.split(|c: char| !c.is_ascii_alphanumeric()).find_map(of_key);
    Refusal {
        cause: of_words(&text).or_else(by_key),
        words: foreign(&text, secrets),
        body: Some(kept.into()),
    }
}

/// The messages of a document as text, and the cause that one of them names.
pub(crate) fn of_document(body: &Value, secrets: &Secrets) -> (String, Option<Cause>) {
    let mut messages = Vec::new();
    collect(body, &mut messages);
    messages.dedup();
    // A general message only refers to the others.
    if messages.iter().any(|message| !message.is_general()) {
        messages.retain(|message| !message.is_general());
    }
    let cause = messages.iter().find_map(Message::cause);
    // The message with the cause comes first, so that it is not cut off.
    messages.sort_by_key(|message| message.cause() != cause);
    let mut words: Vec<String> = Vec::new();
    for message in messages.iter().take(MESSAGES_MAX) {
        let line = message.words();
        if !line.is_empty() && !words.contains(&line) {
            words.push(line);
        }
    }
    let mut words = words.join("; ");
    if let Some(cause) = cause {
        words = format!("{}: {words}", cause.words());
    }
    (foreign(&words, secrets), cause)
}

/// A message, as received.
#[derive(Debug, Default, PartialEq)]
struct Message {
    id: String,
    text: String,
    args: Vec<String>,
}

impl Message {
    fn plain(text: &str) -> Message {
        Message { text: text.to_owned(), ..Message::default() }
    }

    /// The last part of the id, which is its name in the registry.
    fn key(&self) -> &str {
        self.id.rsplit('.').next().unwrap_or_default()
    }

    /// Whether it only says that there was an error, refers to other messages, or reports success.
    fn is_general(&self) -> bool {
        const KEYS: &[&str] =
            &["GeneralError", "ExtendedInfo", "Success", "Created", "NoOperation", "Accepted"];
        let is_general = |key: &&str| key.eq_ignore_ascii_case(self.key());
        KEYS.iter().any(is_general) || self.id.is_empty() && points_elsewhere(&self.text)
    }

    fn cause(&self) -> Option<Cause> {
        // An argument is a value, such as a URL, and its words are not part of the message.
        let mut text = self.text.clone();
        for arg in self.args.iter().filter(|arg| arg.len() > 2) {
            text = text.replace(arg.as_str(), " ");
        }
        of_key(self.key())
            .or_else(|| of_words(&words_of_key(self.key())))
            .or_else(|| of_words(&text))
    }

    /// The text with its id. If there is no useful text, the id with the arguments.
    fn words(&self) -> String {
        let mut text = one_line(&self.text);
        for (at, arg) in self.args.iter().enumerate().rev() {
            text = text.replace(&format!("%{}", at + 1), arg);
        }
        let has_text = !text.is_empty() && !points_elsewhere(&text);
        match (has_text, self.id.is_empty(), self.args.is_empty()) {
            (true, true, _) => text,
            (true, false, _) => format!("{} ({})", text.trim_end_matches('.'), self.id),
            (false, true, _) => String::new(),
            (false, false, true) => self.id.clone(),
            (false, false, false) => format!("{} ({})", self.id, one_line(&self.args.join(", "))),
        }
    }
}

/// Whether a text only refers to others, such as "See ExtendedInfo for more information" in the wording of several
/// registries.
fn points_elsewhere(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("extendedinfo") || text.contains("extended info") || text.trim().is_empty()
}

/// Collects the messages of a document in order: those in ExtendedInfo and similar members at any depth, then the
/// remaining content of an `error`. `document` limits the depth and size.
fn collect(value: &Value, messages: &mut Vec<Message>) {
    if messages.len() >= READ_MAX {
        return;
    }
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                match inner {
                    Value::Object(_) => collect(inner, messages),
                    Value::Array(_) if holds_messages(name) => collect(inner, messages),
                    Value::String(text) if holds_messages(name) => {
                        messages.push(Message::plain(text))
                    }
                    _ => {}
                }
            }
            messages.extend(message_of(members));
        }
        Value::Array(values) => {
            for inner in values.iter().take(READ_MAX) {
                match inner {
                    Value::String(text) => messages.push(Message::plain(text)),
                    inner => collect(inner, messages),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a member with this name holds messages. Arguments and related properties are lists of strings too.
fn holds_messages(name: &str) -> bool {
    is_one_of(name, &["error", "errors", "Messages"])
        || name.to_ascii_lowercase().ends_with("extendedinfo")
}

/// Reads an object as a message. Names are compared without case: `MessageID`, `Message`, `message`.
fn message_of(members: &Map<String, Value>) -> Option<Message> {
    let text = |names: &[&str]| {
        let found = members.iter().find(|(name, value)| {
            is_one_of(name, names) && value.as_str().is_some_and(|text| !text.trim().is_empty())
        });
        found.and_then(|(_, value)| value.as_str()).unwrap_or_default().trim()
    };
    let id = text(&["MessageId", "MessageCode", "code", "ErrorCode"]);
    let id = if is_id(id) { id } else { "" };
    let said = text(&[
        "Message",
        "ErrorMessage",
        "error_description",
        "description",
        "detail",
        "details",
        "reason",
        "title",
    ]);
    if id.is_empty() && said.is_empty() {
        return None;
    }
    let args = members.iter().find(|(name, _)| is_one_of(name, &["MessageArgs"]));
    let args = args.and_then(|(_, args)| args.as_array()).into_iter().flatten();
    let args = args.take(ARGS_MAX).map(|arg| match arg {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    Some(Message { id: id.to_owned(), text: said.to_owned(), args: args.collect() })
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// `Registry.Major.Minor.Key`, or the key alone.
fn is_id(text: &str) -> bool {
    let is_letter =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    text.len() <= ID_CHARS_MAX
        && text.chars().all(is_letter)
        && text.chars().any(|letter| letter.is_ascii_alphabetic())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Turns a page or a text into one line, without tags, scripts and styles. Repeated text, such as a title, is shown
/// once.
fn readable(text: &str) -> String {
    if !text.trim_start().starts_with('<') {
        return one_line(text);
    }
    let mut pieces: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        let piece = one_line(&unescaped(before));
        if !piece.is_empty() && !pieces.contains(&piece) {
            pieces.push(piece);
        }
        rest = match hidden(after) {
            Some(end) => ends_with(after, end),
            None => after.split_once('>').map_or("", |(_, rest)| rest),
        };
    }
    let piece = one_line(&unescaped(rest));
    if !piece.is_empty() && !pieces.contains(&piece) {
        pieces.push(piece);
    }
    pieces.join(", ")
}

/// The end of an element that is not displayed.
fn hidden(tag: &str) -> Option<&'static str> {
    let starts =
        |name: &str| tag.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    [("script", "</script"), ("style", "</style"), ("!--", "-->")]
        .into_iter()
        .find(|(name, _)| starts(name))
        .map(|(_, end)| end)
}

/// The text after the end of an element.
fn ends_with<'a>(text: &'a str, end: &str) -> &'a str {
    // Only ASCII letters change, so positions stay the same.
    let Some(at) = text.to_ascii_lowercase().find(end) else { return "" };
    let rest = &text[at + end.len()..];
    match end.ends_with('>') {
        true => rest,
        false => rest.split_once('>').map_or("", |(_, rest)| rest),
    }
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&nbsp;", " ").replace("&#39;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> (String, Option<Cause>) {
        let refusal = read(body.as_bytes(), &Secrets::default());
        (refusal.words, refusal.cause)
    }

    #[test]
    fn a_refusal_is_understood_in_every_shape_in_which_bmcs_write_it() {
        let post = "the machine is in POST: iLO.2.37.UnableToModifyDuringSystemPOST (BootSourceOverrideTarget)";
        let licence = "the BMC has no license for this; install one that includes it: ";
        for (body, words, cause) in [
            // iLO 5: no text.
            (
                r#"{"error":{"code":"iLO.0.10.ExtendedInfo","message":"See @Message.ExtendedInfo for more information.",
                "@Message.ExtendedInfo":[{"MessageArgs":["BootSourceOverrideTarget"],
                "MessageId":"iLO.2.37.UnableToModifyDuringSystemPOST"}]}}"#,
                post.to_owned(),
                Some(Cause::InPost),
            ),
            // An object instead of the list, and a text without content.
            (
                r#"{"error":{"@Message.ExtendedInfo":{"Message":"See @Message.ExtendedInfo for more information.",
                "MessageArgs":["BootSourceOverrideTarget"],"MessageId":"iLO.2.37.UnableToModifyDuringSystemPOST"}}}"#,
                post.to_owned(),
                Some(Cause::InPost),
            ),
            // iLO 4: messages beside `error` or without it, and another spelling.
            (
                r#"{"Messages":[{"MessageArgs":["Inserted"],"MessageID":"Base.0.10.PropertyUnknown"}],
                "Type":"ExtendedError.1.0.0","error":{"@Message.ExtendedInfo":[{"MessageArgs":["Inserted"],
                "MessageID":"Base.0.10.PropertyUnknown"}],"code":"iLO.0.10.ExtendedInfo",
                "message":"See @Message.ExtendedInfo for more information."}}"#,
                "Base.0.10.PropertyUnknown (Inserted)".to_owned(),
                None,
            ),
            (
                r#"{"Messages":[{"MessageID":"iLO.2.8.LicenseKeyRequired"}],"Name":"Extended Error Information"}"#,
                format!("{licence}iLO.2.8.LicenseKeyRequired"),
                Some(Cause::NoLicence),
            ),
            // Supermicro: only the code.
            (
                r#"{"error":{"code":"Base.1.0.0.OemLicenseNotPassed","message":""}}"#,
                format!("{licence}Base.1.0.0.OemLicenseNotPassed"),
                Some(Cause::NoLicence),
            ),
            // Dell: the general message and its own, in any order.
            (
                r#"{"error":{"code":"Base.1.12.GeneralError","message":"A general error has occurred. See ExtendedInfo",
                "@Message.ExtendedInfo":[{"Message":"The request failed.","MessageId":"Base.1.12.GeneralError"},
                {"Message":"A required license is missing or expired.","MessageId":"IDRAC.2.8.LIC501"}]}}"#,
                format!("{licence}A required license is missing or expired (IDRAC.2.8.LIC501)"),
                Some(Cause::NoLicence),
            ),
            // Huawei: the messages of one property, with placeholders in the text.
            (
                r#"{"Image@Message.ExtendedInfo":[{"MessageId":"Base.1.0.PropertyValueNotInList",
                "Message":"%1 is no value of %2.","MessageArgs":["Cd","Boot"]}]}"#,
                "the BMC does not know this value or action: Cd is no value of Boot (Base.1.0.PropertyValueNotInList)"
                    .to_owned(),
                Some(Cause::NoSuchValue),
            ),
            // An argument is not part of the message: here one of our URLs that looks like a message.
            (
                r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"X.1.0.BadThing",
                "Message":"cannot use https://c/license-is-required.iso or license required",
                "MessageArgs":["https://c/license-is-required.iso","license required"]}]}}"#,
                "cannot use https://c/license-is-required.iso or license required (X.1.0.BadThing)".to_owned(),
                None,
            ),
            (
                r#"{"error":"too many sessions"}"#,
                "the BMC has no free session; idle sessions end after some minutes: too many sessions".to_owned(),
                Some(Cause::SessionLimit),
            ),
            (r#"{"code":1104,"message":"bad thing"}"#, "bad thing".to_owned(), None),
            (r#"["first", "second"]"#, "first; second".to_owned(), None),
            (r#"{"error":{}}"#, String::new(), None),
            ("null", String::new(), None),
            ("", String::new(), None),
            (
                "<!DOCTYPE html>\n<html><head><title>503 Busy</title><style>p { color: red }</style></head>\n<body>\
                 <h1>503 Busy</h1><!-- a > b --><p>The service is temporarily unavailable &amp; more</p></body></html>",
                "503 Busy, The service is temporarily unavailable & more".to_owned(),
                Some(Cause::NotReady),
            ),
            (
                r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"iLO.2.8.LicenseKeyRequired","#,
                r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"iLO.2.8.LicenseKeyRequired","#.to_owned(),
                Some(Cause::NoLicence),
            ),
            ("not  allowed\r\nhere\n", "not allowed here".to_owned(), None),
            (r#""as a string""#, "as a string".to_owned(), None),
        ] {
            assert_eq!(said(body), (words, cause), "{body}");
        }
    }

    #[test]
    fn a_refusal_is_bounded_and_has_no_secret() {
        let secrets = Secrets::of_login("root", "calvin-and-hobbes");
        let token = "0123456789abcdef".repeat(3);
        for body in [
            format!(
                r#"{{"error":{{"message":"bad password calvin-and-hobbes for /m/{token}/x"}}}}"#
            ),
            format!("<p>bad password calvin-and-hobbes for /m/{token}/x</p>"),
            format!(
                r#"{{"error":{{"code":"A.1.0.B","@Message.ExtendedInfo":[{{"MessageId":"A.1.0.C",
                "MessageArgs":["calvin-and-hobbes","/m/{token}/x"]}}]}}}}"#
            ),
            "calvin-and-hobbes ".repeat(10_000),
            (0..100_000).map(|n| format!("<b>{n}</b>")).collect(),
            format!("[{}\"x\"]", "{\"MessageId\":\"A.1.0.B\",\"Message\":\"x\"},".repeat(10_000)),
        ] {
            let refusal = read(body.as_bytes(), &secrets);
            let kept = refusal.body.unwrap();
            assert!(!refusal.words.is_empty() && refusal.words.chars().count() <= 300);
            assert!(kept.chars().count() <= 5000, "{}", kept.len());
            for text in [&*refusal.words, &*kept] {
                assert!(!text.contains("calvin-and") && !text.contains(&token), "{text}");
            }
        }
    }
}
