// SPDX-License-Identifier: AGPL-3.0-or-later
//! The effect of a PATCH: it sets properties that the resource shows, to values that the tree allows. If a resource has
//! a settings object with the same properties, that object accepts the change, and the resource itself
//! ignores it. Pure.

use serde_json::{Value, json};

use super::actions::{ALLOWABLE, allows};
use super::tree::{Tree, key, link};
use crate::fleet::reply::Reply;

/// The settings object to which a PATCH of this resource must be sent. `None` if the resource itself accepts it.
pub fn settings_object(tree: &Tree, path: &str, change: &Value) -> Option<String> {
    let settings = link(&tree.body(path)?["@Redfish.Settings"]["SettingsObject"])?;
    let pending = tree.body(&settings)?;
    let is_taken_there = change.as_object()?.iter().all(|(name, value)| has(pending, name, value));
    (is_taken_there && key(&settings) != key(path)).then_some(settings)
}

/// Whether a resource shows a property, including the properties within an object.
fn has(body: &Value, name: &str, value: &Value) -> bool {
    match (body.get(name), value) {
        (Some(shown), Value::Object(inner)) => {
            inner.iter().any(|(name, _)| shown.get(name).is_some())
        }
        (shown, _) => shown.is_some(),
    }
}

/// The settings objects, by path, each with its resource.
pub fn owners(tree: &Tree) -> Vec<(String, String)> {
    let owned = tree.bodies().filter_map(|(path, body)| {
        let settings = link(&body["@Redfish.Settings"]["SettingsObject"])?;
        Some((key(&settings), path.to_owned()))
    });
    owned.collect()
}

/// Checks the whole change, then applies it.
pub fn patch(tree: &mut Tree, path: &str, change: &Value) -> Result<(), Reply> {
    let body = tree.body_mut(path).ok_or_else(Reply::not_found)?;
    let Some(members) = change.as_object().filter(|members| !members.is_empty()) else {
        return Err(Reply::refused(400, "MalformedJSON", "an object with a property is expected"));
    };
    check(body, members)?;
    merge(body, members);
    at_rest(body);
    Ok(())
}

/// Shows a change for the next boot in the resource itself too, as far as it has these properties.
pub fn mirror(tree: &mut Tree, path: &str, change: &Value) {
    if let (Some(body), Some(members)) = (tree.body_mut(path), change.as_object()) {
        merge(body, members);
        at_rest(body);
    }
}

type Members = serde_json::Map<String, Value>;

fn check(body: &Value, members: &Members) -> Result<(), Reply> {
    for (name, value) in members {
        let Some(shown) = body.get(name) else {
            return Err(Reply::refused(400, "PropertyUnknown", name));
        };
        if let (Value::Object(_), Value::Object(inner)) = (shown, value) {
            check(shown, inner)?;
            continue;
        }
        let lists = [body.get(format!("{name}{ALLOWABLE}")), listed_as_supported(body, name)];
        let known = known_values(name);
        let is_known = known.is_empty() || known.iter().any(|known| *value == *known);
        if !is_known || !lists.into_iter().flatten().all(|list| allows(list, value)) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            return Err(Reply::refused(400, "PropertyValueNotInList", &format!("{name} {text}")));
        }
    }
    Ok(())
}

/// Drafts before Redfish 1.0 list the targets under this name.
fn listed_as_supported<'a>(boot: &'a Value, name: &str) -> Option<&'a Value> {
    (name == "BootSourceOverrideTarget").then(|| boot.get("BootSourceOverrideSupported"))?
}

/// The values of properties for which the schema lists all of them.
fn known_values(name: &str) -> &'static [&'static str] {
    match name {
        "BootSourceOverrideEnabled" => &["Disabled", "Once", "Continuous"],
        "BootSourceOverrideMode" => &["UEFI", "Legacy"],
        _ => &[],
    }
}

/// Sets the properties that the resource has.
fn merge(body: &mut Value, members: &Members) {
    for (name, value) in members {
        match (body.get_mut(name), value) {
            (Some(shown @ Value::Object(_)), Value::Object(inner)) => merge(shown, inner),
            (Some(shown), value) => *shown = value.clone(),
            (None, _) => {}
        }
    }
}

/// Removes the target of a disabled override.
fn at_rest(body: &mut Value) {
    let Some(boot) = body.get_mut("Boot") else { return };
    if boot.get("BootSourceOverrideEnabled").is_some_and(|enabled| *enabled == "Disabled")
        && let Some(target) = boot.get_mut("BootSourceOverrideTarget")
    {
        *target = json!("None");
    }
}
