// SPDX-License-Identifier: AGPL-3.0-or-later
//! The recipe as written: flat, every field optional, as in `recipe.schema.json`. The order of the fields
//! here is their order in the canonical JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::payload::Payload;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_version: Option<u32>,
    pub task_target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_disk: Option<TargetDisk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<Wipe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wim_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_layout: Option<Vec<Partition>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattend_xml: Option<Payload>,
    #[serde(default, alias = "ks.cfg", skip_serializing_if = "Option::is_none")]
    pub ks_cfg: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

impl Wire {
    /// The canonical JSON: fields in the order above, keys of maps sorted.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a recipe came from JSON and goes back");
        bytes.push(b'\n');
        bytes
    }

    /// Sorts the keys within `metadata`, which otherwise keep the order of the input.
    pub fn sort(&mut self) {
        self.metadata.values_mut().for_each(Value::sort_all_objects);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetDisk {
    Name(String),
    Hints(Hints),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hctl: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Wipe {
    Word(String),
    Expect { expect: Vec<String> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    pub size: String,
    pub type_guid: String,
    pub format: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub interfaces: Vec<Interface>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    pub macs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub to: String,
    pub via: String,
}
