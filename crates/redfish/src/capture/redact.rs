// SPDX-License-Identifier: AGPL-3.0-or-later
//! Removes everything that identifies the machine from a capture: by the names of properties, and by the form of
//! values in any text. A value that was found is replaced everywhere, including in links, so that links still match.
//! Pure.
//!
//! What remains: maker, models, versions, and texts in which nothing has one of these forms. A name that is an
//! ordinary word (a host called `oak`) is replaced as a word of a text, as a segment of a link or alone, but not
//! within another word.

use serde_json::{Map, Value};

use super::captured::{Captured, Recorded};
use super::forms;
use super::names::{Kind, Names};
use super::properties::{Property, property};

/// Replaces a secret.
const SECRET: &str = "***";
/// Attributes that affect booting. The others are removed: they contain addresses, users and communities in hundreds
/// of forms.
const KEPT_ATTRIBUTES: &[&str] = &["serverboot.", "virtualmedia", "bootmode", "secureboot"];
/// Values that firmware shows if no number was set.
const PLACEHOLDERS: &[&str] = &[
    "none",
    "n/a",
    "na",
    "null",
    "unknown",
    "empty",
    "default string",
    "not specified",
    "not available",
    "not applicable",
    "not set",
    "system serial number",
    "chassis serial number",
    "base board serial number",
    "system product name",
    "to be filled by o.e.m.",
    "0123456789",
    "1234567890",
    "123456789",
];
/// Segments of links that the standard or a maker uses on every machine. They are kept even if a name is the same.
const LINK_WORDS: &[&str] = &[
    "redfish",
    "v1",
    "Systems",
    "Managers",
    "Chassis",
    "VirtualMedia",
    "Actions",
    "Oem",
    "Self",
    "system",
    "bmc",
    "chassis",
    "Bios",
    "Settings",
    "SD",
    "UpdateService",
    "FirmwareInventory",
    "SessionService",
    "Sessions",
    "Fabrics",
    "Storage",
    "Power",
    "Thermal",
    "Memory",
    "Processors",
    "EthernetInterfaces",
    "NetworkInterfaces",
    "NetworkAdapters",
    "LogServices",
    "AccountService",
    "Accounts",
    "CertificateService",
    "EventService",
    "TaskService",
    "Tasks",
    "NetworkProtocol",
    "SecureBoot",
    "BootOptions",
    "PCIeDevices",
];

/// The context of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Version,
    Technical,
    Other,
    /// The name of a property.
    Key,
}

pub fn redacted(
    captured: Captured,
    host: &str,
    username: &str,
    hidden: &dyn Fn(&str) -> String,
) -> Captured {
    let mut names = Names::default();
    let host = host.trim_matches(['[', ']']);
    for (kind, name) in [(Kind::Host, host), (Kind::User, username)] {
        if is_name(kind, name) {
            names.replacement(forms::whole(name).unwrap_or(kind), name);
        }
    }
    let Captured { mut resources, mut notes } = captured;
    // All names are collected before any text is rewritten: a name may occur in a link before its property.
    for Recorded { path, body, headers, .. } in &mut resources {
        each_text(body, &mut |text| *text = without_origin(text, host));
        *path = without_origin(path, host);
        by_property(&mut names, body);
        for (_, value) in headers {
            find_in_text(&mut names, value);
        }
    }
    for Recorded { path, body, .. } in &resources {
        find(&mut names, body, Place::Other);
        find_in_text(&mut names, path);
        find_serials(&mut names, path);
    }
    let clean = |text: &str, place: Place| {
        let text = hidden(text);
        let is_plain = place == Place::Key || text.starts_with('/');
        let text = if is_plain { text } else { forms::without_blobs(&text, SECRET) };
        replaced(&names, &text, place)
    };
    for Recorded { path, body, headers, .. } in &mut resources {
        *path = clean(path, Place::Other);
        rewrite(body, Place::Other, &clean);
        for (_, value) in headers {
            *value = clean(value, Place::Other);
        }
    }
    for note in &mut notes {
        *note = clean(note, Place::Other);
    }
    resources.sort_by(|one, other| one.path.cmp(&other.path));
    Captured { resources, notes }
}

/// Turns a link with the BMC's own address into a path, because a replay has another address.
fn without_origin(text: &str, host: &str) -> String {
    let rest = ["https://", "http://", "//"].iter().find_map(|start| text.strip_prefix(start));
    let path = rest.and_then(|rest| {
        let path = rest.find("/redfish/")?;
        let is_own = forms::host(&rest[..path]).eq_ignore_ascii_case(host);
        is_own.then_some(&rest[path..])
    });
    path.unwrap_or(text).to_owned()
}

/// Replaces the values of properties by the properties' names. These values are then replaced everywhere.
fn by_property(names: &mut Names, value: &mut Value) {
    let object = match value {
        Value::Object(object) => object,
        Value::Array(items) => return items.iter_mut().for_each(|item| by_property(names, item)),
        _ => return,
    };
    if let Some(Value::Object(attributes)) = object.get_mut("Attributes") {
        attributes.retain(|name, _| {
            let name = name.to_ascii_lowercase();
            KEPT_ATTRIBUTES.iter().any(|kept| name.contains(kept))
        });
    }
    for (name, value) in object {
        // On most BMCs this is an object with the slot of a part; on some it is text that a person wrote.
        let is_place = name.eq_ignore_ascii_case("location") && !value.is_object();
        match property(name) {
            _ if is_place => by_value(value, &mut |_| Some(SECRET.to_owned())),
            Property::Secret => by_value(value, &mut |_| Some(SECRET.to_owned())),
            Property::Private => by_value(value, &mut |_| Some(SECRET.to_owned())),
            Property::Name(kind) => by_value(value, &mut |text| {
                let kind = forms::whole(text).unwrap_or(kind);
                is_name(kind, text).then(|| names.replacement(kind, text))
            }),
            Property::Version | Property::Technical | Property::Other => by_property(names, value),
        }
    }
}

/// Replaces every text and number within a value, except links within the BMC and Redfish annotations.
fn by_value(value: &mut Value, new: &mut dyn FnMut(&str) -> Option<String>) {
    let text = match value {
        Value::String(text) if text.is_empty() || text.starts_with("/redfish/") => return,
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => return items.iter_mut().for_each(|item| by_value(item, new)),
        Value::Object(object) => {
            let named = object.iter_mut().filter(|(name, _)| property(name) != Property::Technical);
            return named.for_each(|(_, value)| by_value(value, new));
        }
        Value::Null | Value::Bool(_) => return,
    };
    if let Some(new) = new(&text) {
        *value = new.into();
    }
}

fn each_text(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, change)),
        Value::Object(object) => object.values_mut().for_each(|value| each_text(value, change)),
        _ => {}
    }
}

/// Whether a text identifies something, and is not a placeholder.
fn is_name(kind: Kind, text: &str) -> bool {
    let text = text.trim();
    let mut letters = text.chars().filter(|c| c.is_alphanumeric());
    let Some(first) = letters.next() else { return false };
    let is_one_letter = letters.all(|c| c == first) && kind != Kind::User;
    let is_placeholder = PLACEHOLDERS.contains(&text.to_ascii_lowercase().as_str());
    let is_local = kind == Kind::Host && text.eq_ignore_ascii_case("localhost");
    !is_one_letter && !is_placeholder && !is_local && text != SECRET && !forms::is_special(text)
}

/// The context of a property's value.
fn place(name: &str) -> Place {
    match property(name) {
        Property::Version => Place::Version,
        Property::Technical => Place::Technical,
        Property::Name(_) | Property::Secret | Property::Private | Property::Other => Place::Other,
    }
}

/// Finds names by their form.
fn find(names: &mut Names, value: &Value, at: Place) {
    match value {
        // A version can have the form of an address.
        Value::String(text) if at == Place::Version && forms::whole(text) == Some(Kind::Ipv4) => {}
        Value::String(text) => {
            find_in_text(names, text);
            if at == Place::Other || text.starts_with("/redfish/") {
                find_serials(names, text);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find(names, item, at)),
        Value::Object(object) => {
            for (name, value) in object {
                find_in_text(names, name);
                find(names, value, place(name));
            }
        }
        _ => {}
    }
}

fn find_in_text(names: &mut Names, text: &str) {
    let mut at = 0;
    while at < text.len() {
        match forms::at(text, at) {
            Some(found) if !found.is_doubtful => {
                names.replacement(found.kind, &text[at..at + found.length]);
                at += found.length;
            }
            _ => at += next(text, at),
        }
    }
}

/// Finds serial numbers in links and in properties of unknown meaning.
fn find_serials(names: &mut Names, text: &str) {
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        if forms::is_serial(word) {
            names.replacement(Kind::Serial, word);
        }
    }
}

/// The length in bytes of the character at a position.
fn next(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

/// The text with all known names replaced.
fn replaced(names: &Names, text: &str, place: Place) -> String {
    if place == Place::Version && forms::whole(text) == Some(Kind::Ipv4) {
        return text.to_owned();
    }
    let lower = text.to_ascii_lowercase();
    let mut new = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let by_form = forms::at(text, at).and_then(|found| {
            let known = names.known(found.kind, &text[at..at + found.length])?;
            Some((found.length, known))
        });
        let found = by_form
            .or_else(|| names.at(&lower, at).map(|(length, known)| (length, known.to_owned())));
        if let Some((length, known)) = found {
            new.push_str(&known);
            at += length;
            continue;
        }
        let length = next(text, at);
        new.push_str(&text[at..at + length]);
        at += length;
    }
    match place {
        Place::Other => without_words(names, &new),
        Place::Version | Place::Technical | Place::Key if new.starts_with("/redfish/") => {
            without_words(names, &new)
        }
        Place::Version | Place::Technical | Place::Key => new,
    }
}

/// Replaces names that are ordinary words.
fn without_words(names: &Names, text: &str) -> String {
    let is_link = text.starts_with("/redfish/");
    let is_end = |c: char| match is_link {
        true => matches!(c, '/' | '#' | '?'),
        false => !(c.is_alphanumeric() || matches!(c, '-' | '_')),
    };
    let mut new = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_end) {
        let word = piece.trim_end_matches(is_end);
        let is_kept = is_link && LINK_WORDS.contains(&word);
        let known = names.word(word).filter(|_| !is_kept);
        new.push_str(known.unwrap_or(word));
        new.push_str(&piece[word.len()..]);
    }
    new
}

fn rewrite(value: &mut Value, at: Place, clean: &dyn Fn(&str, Place) -> String) {
    match value {
        Value::String(text) => *text = clean(text, at),
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, at, clean)),
        Value::Object(object) => {
            let mut new = Map::new();
            for (name, mut value) in std::mem::take(object) {
                rewrite(&mut value, place(&name), clean);
                new.insert(clean(&name, Place::Key), value);
            }
            *object = new;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
