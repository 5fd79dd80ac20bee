// SPDX-License-Identifier: AGPL-3.0-or-later
//! The effect of an insert and an eject on a slot of the tree. Pure.
//!
//! If an empty slot has an insert action and no eject action, it offers only what is possible now: when it is occupied
//! it offers the eject action instead (Supermicro; bmclib #406, metal3 ironic).

use serde_json::{Value, json};

use super::tree::{Tree, key, link};
use crate::fleet::reply::Reply;

const INSERT: &str = "#VirtualMedia.InsertMedia";
const EJECT: &str = "#VirtualMedia.EjectMedia";
/// Prefixes of Lenovo's slots that accept only uploads or files of the BMC (lenovo/python-redfish-lenovo #21).
const NAMES_WITHOUT_URLS: &[&str] = &["RDOC", "Remote"];

/// The slots of a system: its own, or those of its managers.
pub fn slots_of(tree: &Tree, system: &str) -> Vec<String> {
    let Some(body) = tree.body(system) else { return Vec::new() };
    let mut slots = tree.members(&body["VirtualMedia"]);
    let managers = body["Links"]["ManagedBy"].as_array().into_iter().flatten().filter_map(link);
    for manager in managers {
        let below = |manager: &str| json!({"@odata.id": format!("{}/VirtualMedia", key(manager))});
        if let Some(body) = tree.body(&manager) {
            let named = body.get("VirtualMedia").cloned().unwrap_or_else(|| below(&manager));
            slots.extend(tree.members(&named));
        }
    }
    if slots.is_empty() {
        // Older BMCs link neither.
        slots =
            tree.bodies().filter(|(_, body)| is_slot(body)).map(|(path, _)| path.into()).collect();
    }
    slots
}

pub fn is_slot(body: &Value) -> bool {
    let kind = body["@odata.type"].as_str().unwrap_or_default();
    kind.starts_with("#VirtualMedia.")
        || (body.get("Inserted").is_some() && body.get("Image").is_some())
}

/// The medium in a slot.
pub fn image(slot: &Value) -> Option<&str> {
    let image = slot["Image"].as_str().filter(|image| !image.is_empty());
    // An image may stay after an eject.
    image.filter(|_| slot["Inserted"] != false)
}

/// Whether a medium is inserted by PATCH: the slot has no action for it.
pub fn is_patched(slot: &Value) -> bool {
    is_slot(slot) && ![INSERT, EJECT].iter().any(|name| slot["Actions"].get(name).is_some())
}

pub fn insert(tree: &mut Tree, slot: &str, url: &str, given: &Value) -> Result<(), Reply> {
    let body = tree.body_mut(slot).ok_or_else(Reply::not_found)?;
    if image(body).is_some() || body["Inserted"] == true {
        return Err(Reply::refused(409, "ResourceInUse", "there is a medium in this slot"));
    }
    let id = body["Id"].as_str().unwrap_or_default();
    if is_patched(body) && NAMES_WITHOUT_URLS.iter().any(|name| id.starts_with(name)) {
        let why = format!("the value {url} of Image is of a different format");
        return Err(Reply::refused(400, "PropertyValueFormatError", &why));
    }
    let name = url.rsplit('/').next().unwrap_or_default();
    // Some BMCs omit properties of an empty slot that would be null. These two show that there is a medium.
    body["Image"] = json!(url);
    body["Inserted"] = json!(true);
    set(body, "ImageName", &json!(name));
    set(body, "ConnectedVia", &json!("URI"));
    for property in ["WriteProtected", "TransferProtocolType", "TransferMethod", "UserName"] {
        if let Some(value) = given.get(property) {
            set(body, property, value);
        }
    }
    offer(body, INSERT, EJECT);
    Ok(())
}

/// Ejects the medium. A slot that was recorded empty is restored completely.
pub fn eject(tree: &mut Tree, recorded: &Tree, slot: &str) -> Result<(), Reply> {
    let before = recorded.body(slot).filter(|before| image(before).is_none()).cloned();
    let body = tree.body_mut(slot).ok_or_else(Reply::not_found)?;
    if let Some(before) = before {
        *body = before;
        return Ok(());
    }
    set(body, "Image", &Value::Null);
    set(body, "ImageName", &Value::Null);
    set(body, "Inserted", &json!(false));
    set(body, "ConnectedVia", &json!("NotConnected"));
    offer(body, EJECT, INSERT);
    Ok(())
}

/// For a slot that offers only what is possible: replaces the present action with the other one, with its target.
fn offer(body: &mut Value, now: &str, then: &str) {
    let Some(Value::Object(actions)) = body.get_mut("Actions") else { return };
    if actions.contains_key(then) {
        return;
    }
    let word = |name: &str| name.trim_start_matches('#').to_owned();
    let target = actions.get(now).and_then(|action| action["target"].as_str());
    let Some(target) = target.map(|target| target.replace(&word(now), &word(then))) else { return };
    actions.remove(now);
    actions.insert(then.to_owned(), json!({"target": target}));
}

/// Sets a property, if the resource has it.
fn set(body: &mut Value, property: &str, value: &Value) {
    if let Some(shown) = body.get_mut(property) {
        *shown = value.clone();
    }
}
