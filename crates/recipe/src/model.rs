// SPDX-License-Identifier: AGPL-3.0-or-later
//! The validated recipe. A value of these types has passed every check.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::layout::Partition;
use crate::payload::Payload;
use crate::prefix;
use crate::target_disk::DiskHints;
use crate::wire::Wire;

/// The host in `oci_url` that means the controller's own registry, whatever its address.
pub const CONTROLLER_HOST: &str = "controller";

/// Replaces, on a task medium, a value that must not be readable there.
pub(crate) const STAND_IN: &str =
    "withheld: the controller gives it to the machine that has its permit";

/// What to install on one server.
#[derive(Clone, PartialEq)]
pub struct Recipe {
    pub task_target: TaskTarget,
    pub workflow: Workflow,
    /// Network of the maintenance OS; DHCP where it is absent.
    pub network: Option<Network>,
    pub env: BTreeMap<String, String>,
    pub(crate) wire: Wire,
}

/// A systemd target's name, `[a-z0-9.-]+\.target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskTarget(pub(crate) String);

/// The work that the target does.
#[derive(Debug, Clone, PartialEq)]
pub enum Workflow {
    Linux(Linux),
    Windows(Windows),
    Esxi(Esxi),
    Firmware(Firmware),
    /// A target that is not part of Shoal. It reads what it needs from the files and from `env`.
    Custom,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Linux {
    pub target_disk: DiskHints,
    pub wipe: Wipe,
    /// Its syntax has been checked with the parser of the `oci` crate.
    pub oci_url: String,
    pub layout: Vec<Partition>,
    pub user_data: Option<Payload>,
    pub meta_data: Option<Payload>,
    pub network_config: Option<Payload>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    pub target_disk: DiskHints,
    pub wipe: Wipe,
    pub oci_url: String,
    pub wim_index: u32,
    /// If empty: ESP, MSR and one NTFS partition.
    pub layout: Vec<Partition>,
    pub unattend_xml: Payload,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Esxi {
    pub ks_cfg: Payload,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Firmware {
    pub url: String,
    pub sha256: Option<String>,
}

/// Consent to destroy the content of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wipe {
    /// Only a blank disk, or a disk that already has this layout, may be written.
    Never,
    Any,
    /// Only if no signatures other than these are found.
    Expect(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub interfaces: Vec<Interface>,
}

/// One interface, or one bond of several, with an optional VLAN on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Lower case, `aa:bb:cc:dd:ee:ff`.
    pub macs: Vec<String>,
    pub bond: Option<Bond>,
    pub vlan: Option<u16>,
    pub mtu: Option<u16>,
    pub dhcp: bool,
    /// Address and prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    pub gateways: Vec<IpAddr>,
    pub nameservers: Vec<IpAddr>,
    pub routes: Vec<Route>,
}

impl Interface {
    /// Whether the gateway is in none of this interface's networks. Networks that DHCP will add are not known.
    pub fn is_beyond_prefixes(&self, gateway: IpAddr) -> bool {
        let is_link_local = matches!(gateway, IpAddr::V6(six) if six.is_unicast_link_local());
        !is_link_local && !self.addresses.iter().any(|prefix| prefix::contains(*prefix, gateway))
    }
}

/// A static route: the gateway for packets to a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub to: (IpAddr, u8),
    pub via: IpAddr,
}

/// Bonding modes, with the names of systemd.netdev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    ActiveBackup,
    Lacp,
    BalanceRr,
    BalanceXor,
}

impl Bond {
    pub fn name(self) -> &'static str {
        match self {
            Bond::ActiveBackup => "active-backup",
            Bond::Lacp => "802.3ad",
            Bond::BalanceRr => "balance-rr",
            Bond::BalanceXor => "balance-xor",
        }
    }
}

impl TaskTarget {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskTarget {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // `env` may contain secrets, as payloads do.
        write!(f, "Recipe({})", self.redacted())
    }
}

impl Recipe {
    /// The canonical JSON: equal recipes give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        self.wire.to_json()
    }

    /// The recipe for display: payloads and values of `env` are replaced by their size.
    pub fn redacted(&self) -> Value {
        let mut value = serde_json::to_value(&self.wire).unwrap_or_default();
        for key in ["user_data", "meta_data", "network_config", "unattend_xml", "ks_cfg"] {
            if let Some(payload) = value.get_mut(key) {
                *payload = json!({"bytes": payload.as_str().map_or(0, str::len)});
            }
        }
        if let Some(Value::Object(env)) = value.get_mut("env") {
            for text in env.values_mut() {
                *text = json!({"bytes": text.as_str().map_or(0, str::len)});
            }
        }
        value
    }

    /// The recipe for a medium that others can read: what the user wrote for the installed system, and the values of
    /// `env`, are replaced by stand-ins. A kickstart is kept, because ESXi's own installer reads it from the medium.
    pub fn without_secrets(&self) -> Recipe {
        let mut open = self.clone();
        let hide = |payload: &mut Option<Payload>| {
            if let Some(payload) = payload {
                *payload = STAND_IN.to_owned().into();
            }
        };
        let wire = &mut open.wire;
        [
            &mut wire.user_data,
            &mut wire.meta_data,
            &mut wire.network_config,
            &mut wire.unattend_xml,
        ]
        .into_iter()
        .for_each(hide);
        wire.env.values_mut().for_each(|text| STAND_IN.clone_into(text));
        open.env.clone_from(&wire.env);
        match &mut open.workflow {
            Workflow::Linux(linux) => {
                [&mut linux.user_data, &mut linux.meta_data, &mut linux.network_config]
                    .into_iter()
                    .for_each(hide);
            }
            Workflow::Windows(windows) => windows.unattend_xml = STAND_IN.to_owned().into(),
            Workflow::Esxi(_) | Workflow::Firmware(_) | Workflow::Custom => {}
        }
        open
    }

    pub fn target_disk(&self) -> Option<&DiskHints> {
        match &self.workflow {
            Workflow::Linux(linux) => Some(&linux.target_disk),
            Workflow::Windows(windows) => Some(&windows.target_disk),
            Workflow::Esxi(_) | Workflow::Firmware(_) | Workflow::Custom => None,
        }
    }

    pub fn oci_url(&self) -> Option<&str> {
        match &self.workflow {
            Workflow::Linux(linux) => Some(&linux.oci_url),
            Workflow::Windows(windows) => Some(&windows.oci_url),
            Workflow::Esxi(_) | Workflow::Firmware(_) | Workflow::Custom => None,
        }
    }

    pub fn layout(&self) -> &[Partition] {
        match &self.workflow {
            Workflow::Linux(linux) => &linux.layout,
            Workflow::Windows(windows) => &windows.layout,
            Workflow::Esxi(_) | Workflow::Firmware(_) | Workflow::Custom => &[],
        }
    }

    /// The payloads with their file names.
    pub fn payloads(&self) -> Vec<(&'static str, &Payload)> {
        let wire = &self.wire;
        [
            ("user-data", &wire.user_data),
            ("meta-data", &wire.meta_data),
            ("network-config", &wire.network_config),
            ("unattend.xml", &wire.unattend_xml),
            ("KS.CFG", &wire.ks_cfg),
        ]
        .into_iter()
        .filter_map(|(name, payload)| Some((name, payload.as_ref()?)))
        .collect()
    }
}
