// SPDX-License-Identifier: AGPL-3.0-or-later
//! The actions in a tree, and the values that the tree allows for their parameters: `@Redfish.AllowableValues` beside
//! the target, or `@Redfish.ActionInfo`. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tree::{Tree, key};
use crate::fleet::reply::Reply;

/// The suffix of a property or parameter for the list of its allowed values.
pub const ALLOWABLE: &str = "@Redfish.AllowableValues";
/// The parameters in the standard (DSP2046, VirtualMedia).
const INSERT_PARAMETERS: &[&str] = &[
    "Image",
    "Inserted",
    "MediaTypes",
    "Password",
    "TransferMethod",
    "TransferProtocolType",
    "UserName",
    "WriteProtected",
];

/// One action of one resource.
#[derive(Debug, Clone)]
pub struct Action {
    /// The resource with this action.
    pub owner: String,
    pub verb: Verb,
    /// The action's object in the resource.
    object: Value,
}

/// What an action does in the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    InsertMedia,
    EjectMedia,
    /// Huawei's: one action for both.
    VmmControl,
    ResetSystem,
    ResetManager,
    /// AMI's: enables remote media.
    EnableRemoteMedia,
    Unknown,
}

impl Verb {
    fn named(name: &str) -> Verb {
        match name.trim_start_matches('#') {
            "VirtualMedia.InsertMedia"
            | "HpiLOVirtualMedia.InsertVirtualMedia"
            | "HpeiLOVirtualMedia.InsertVirtualMedia" => Verb::InsertMedia,
            "VirtualMedia.EjectMedia"
            | "HpiLOVirtualMedia.EjectVirtualMedia"
            | "HpeiLOVirtualMedia.EjectVirtualMedia" => Verb::EjectMedia,
            "VirtualMedia.VmmControl" => Verb::VmmControl,
            "ComputerSystem.Reset" => Verb::ResetSystem,
            "Manager.Reset" => Verb::ResetManager,
            "AMIVirtualMedia.EnableRMedia" => Verb::EnableRemoteMedia,
            _ => Verb::Unknown,
        }
    }
}

/// Every action of a tree, by its target.
#[derive(Debug, Default)]
pub struct Actions {
    by_target: BTreeMap<String, Action>,
}

impl Actions {
    pub fn of(tree: &Tree) -> Actions {
        let mut actions = Actions::default();
        for (path, body) in tree.bodies() {
            actions.collect(path, body);
        }
        actions
    }

    pub fn at(&self, target: &str) -> Option<&Action> {
        self.by_target.get(&key(target))
    }

    fn collect(&mut self, owner: &str, value: &Value) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    match value["target"].as_str() {
                        Some(target) if name.starts_with('#') => {
                            self.add(owner, name, target, value);
                        }
                        _ => self.collect(owner, value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.collect(owner, item)),
            _ => {}
        }
    }

    /// Adds an action. A settings object repeats the actions of its resource, so the owner is the resource that
    /// contains the target.
    fn add(&mut self, owner: &str, name: &str, target: &str, object: &Value) {
        let target = key(target);
        let is_below = |owner: &str| target.starts_with(&format!("{owner}/"));
        let is_better = match self.by_target.get(&target) {
            None => true,
            Some(known) => match (is_below(owner), is_below(&known.owner)) {
                (true, true) => owner.len() > known.owner.len(),
                (is_below, _) => is_below,
            },
        };
        if is_better {
            self.by_target.insert(target, Action::of(owner, name, object));
        }
    }
}

impl Action {
    pub fn of(owner: &str, name: &str, object: &Value) -> Action {
        Action { owner: owner.to_owned(), verb: Verb::named(name), object: object.clone() }
    }

    /// Checks these parameters against the tree.
    pub fn check(&self, tree: &Tree, body: &Value) -> Result<(), Reply> {
        let none = serde_json::Map::new();
        let given = match body {
            Value::Null => &none,
            Value::Object(given) => given,
            _ => return Err(refused("MalformedJSON", "an object is expected")),
        };
        let info = self.object["@Redfish.ActionInfo"].as_str().and_then(|path| tree.body(path));
        let described = info.and_then(|info| info["Parameters"].as_array());
        let named =
            |name: &str| described.and_then(|all| all.iter().find(|one| one["Name"] == name));
        for (name, value) in given {
            let is_known = match (described, self.verb) {
                (Some(_), _) => named(name).is_some(),
                (None, Verb::InsertMedia) => INSERT_PARAMETERS.contains(&name.as_str()),
                (None, _) => true,
            };
            if !is_known {
                return Err(refused("ActionParameterUnknown", name));
            }
            let beside = self.object.get(format!("{name}{ALLOWABLE}"));
            let described = named(name).and_then(|one| one.get("AllowableValues"));
            if ![beside, described].into_iter().flatten().all(|list| allows(list, value)) {
                return Err(refused("ActionParameterValueNotInList", &format!("{name} {value}")));
            }
        }
        let is_missing = |one: &&Value| {
            let name = one["Name"].as_str().unwrap_or_default();
            one["Required"] == true && given.get(name).is_none_or(Value::is_null)
        };
        match described.into_iter().flatten().find(is_missing) {
            Some(one) => Err(refused("ActionParameterMissing", &one["Name"].to_string())),
            None => Ok(()),
        }
    }

    /// Whether this protocol is allowed, for a client that names none in its request.
    pub fn takes_protocol(&self, tree: &Tree, protocol: &str) -> bool {
        const NAME: &str = "TransferProtocolType";
        let info = self.object["@Redfish.ActionInfo"].as_str().and_then(|path| tree.body(path));
        let described = info
            .and_then(|info| info["Parameters"].as_array())
            .and_then(|all| all.iter().find(|one| one["Name"] == NAME)?.get("AllowableValues"));
        let beside = self.object.get(format!("{NAME}{ALLOWABLE}"));
        let own = tree.body(&self.owner).and_then(|owner| owner.get(format!("{NAME}{ALLOWABLE}")));
        let lists = [beside, described, own].into_iter().flatten();
        lists.into_iter().all(|list| allows(list, &protocol.into()))
    }
}

/// Whether a list allows a value. An empty list, or something else than a list, allows everything.
pub fn allows(list: &Value, value: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        None | Some([]) => true,
        Some(list) => match value {
            Value::Array(values) => values.iter().all(|value| list.contains(value)),
            value => list.contains(value),
        },
    }
}

fn refused(message_id: &str, message: &str) -> Reply {
    Reply::refused(400, message_id, message)
}
