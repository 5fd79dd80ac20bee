// SPDX-License-Identifier: AGPL-3.0-or-later
//! The recipe of all trials: Debian on one disk with three partitions, with the parts that a trial can change.

use serde_json::{Value, json};

/// What a trial sets in its recipe; the default installs no real system.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Serial number of the target disk.
    pub disk: &'static str,
    pub oci_url: String,
    /// File system of the root partition.
    pub root_format: &'static str,
    pub user_data: String,
    pub network_config: Option<&'static str>,
    /// Network of the maintenance OS.
    pub network: Option<Value>,
    pub wipe: Option<Value>,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            disk: "DISK1",
            oci_url: format!("registry.example/os/debian@sha256:{}", "ab".repeat(32)),
            root_format: "ext4",
            user_data: "#cloud-config\nhostname: web-1\n".into(),
            network_config: None,
            network: None,
            wipe: None,
        }
    }
}

impl Recipe {
    pub fn json(&self) -> Value {
        let mut recipe = json!({
            "task_target": "install-linux.target",
            "target_disk": {"serial": self.disk},
            "oci_url": self.oci_url,
            "partition_layout": [
                {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
                {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "CIDATA"},
                {"size": "100%", "type_guid": "8300", "format": self.root_format, "label": "root"}
            ],
            "user_data": self.user_data,
        });
        let optional = [
            ("network_config", self.network_config.map(Value::from)),
            ("network", self.network.clone()),
            ("wipe", self.wipe.clone()),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                recipe[name] = value;
            }
        }
        recipe
    }
}
