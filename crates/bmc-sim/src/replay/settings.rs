// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a PATCH does: it sets properties that the resource shows, to values that the tree allows. Of a
//! resource whose settings object has the same properties that one takes them, and the resource itself
//! ignores them. Pure.

use serde_json::{Value, json};

use super::actions::{ALLOWABLE, allows};
use super::tree::{Tree, key, link};
use crate::fleet::reply::Reply;

/// Where a PATCH of this resource has to go to be of effect, where that is not itself.
pub fn settings_object(tree: &Tree, path: &str, change: &Value) -> Option<String> {
    let settings = link(&tree.body(path)?["@Redfish.Settings"]["SettingsObject"])?;
    let pending = tree.body(&settings)?;
    let is_taken_there = change.as_object()?.iter().all(|(name, value)| has(pending, name, value));
    (is_taken_there && key(&settings) != key(path)).then_some(settings)
}

/// Whether a property, and of an object those within it, is shown.
fn has(body: &Value, name: &str, value: &Value) -> bool {
    match (body.get(name), value) {
        (Some(shown), Value::Object(inner)) => {
            inner.iter().any(|(name, _)| shown.get(name).is_some())
        }
        (shown, _) => shown.is_some(),
    }
}

/// The resources that are settings objects of others, by path, with those.
pub fn owners(tree: &Tree) -> Vec<(String, String)> {
    let owned = tree.bodies().filter_map(|(path, body)| {
        let settings = link(&body["@Redfish.Settings"]["SettingsObject"])?;
        Some((key(&settings), path.to_owned()))
    });
    owned.collect()
}

/// Checks the whole change, then makes it.
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

/// What was written for the next boot shows in the resource itself, too, as far as it has it.
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

/// Redfish before 1.0 listed the targets so.
fn listed_as_supported<'a>(boot: &'a Value, name: &str) -> Option<&'a Value> {
    (name == "BootSourceOverrideTarget").then(|| boot.get("BootSourceOverrideSupported"))?
}

/// Of properties whose values the schema lists whole.
fn known_values(name: &str) -> &'static [&'static str] {
    match name {
        "BootSourceOverrideEnabled" => &["Disabled", "Once", "Continuous"],
        "BootSourceOverrideMode" => &["UEFI", "Legacy"],
        _ => &[],
    }
}

/// As far as the resource has these properties.
fn merge(body: &mut Value, members: &Members) {
    for (name, value) in members {
        match (body.get_mut(name), value) {
            (Some(shown @ Value::Object(_)), Value::Object(inner)) => merge(shown, inner),
            (Some(shown), value) => *shown = value.clone(),
            (None, _) => {}
        }
    }
}

/// An override that is disabled has no target.
fn at_rest(body: &mut Value) {
    let Some(boot) = body.get_mut("Boot") else { return };
    if boot.get("BootSourceOverrideEnabled").is_some_and(|enabled| *enabled == "Disabled")
        && let Some(target) = boot.get_mut("BootSourceOverrideTarget")
    {
        *target = json!("None");
    }
}
