// SPDX-License-Identifier: AGPL-3.0-or-later
//! Remote media as a service of the BMC. It can be disabled: then the BMC has no slots, or they refuse every medium.
//! Only AMI's BMCs are known to do this, whatever brand they are sold under. `Oem.Ami.VirtualMedia.RMediaStatus` of
//! the manager shows the state, and its action `AMIVirtualMedia.EnableRMedia` changes it. The change takes a few
//! seconds, and the slots appear later still. Changing the state is in `media_switch`.
//!
//! Sources: public clients and set-up scripts for MegaRAC boards (status, action, its parameter `RMediaState`);
//! Lenovo's documentation of the ThinkSystem System Manager of SR635 and SR655 (AMI's actions of the manager take four
//! to five seconds).

use serde_json::Value;

/// The end of the action's name, which begins with `#`.
const ACTION: &str = "AMIVirtualMedia.EnableRMedia";

/// The state of the service, on a BMC that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteMedia {
    pub is_enabled: bool,
    /// The action that changes the state. `None` if the BMC offers none.
    pub(crate) switch: Option<String>,
}

impl RemoteMedia {
    /// Reads the state from the manager. Some firmware has the action at the system.
    pub(crate) fn of(manager: &Value, system: &Value) -> Option<RemoteMedia> {
        let is_enabled = is_enabled(manager)?;
        let switch = [manager, system].into_iter().find_map(|resource| {
            let actions = resource["Actions"]["Oem"].as_object()?;
            let (_, action) = actions.iter().find(|(name, _)| name.ends_with(ACTION))?;
            action["target"].as_str().map(str::to_owned)
        });
        Some(RemoteMedia { is_enabled, switch })
    }

    pub fn can_be_switched(&self) -> bool {
        self.switch.is_some()
    }
}

/// Whether the service is enabled. `None` if the manager does not show it.
pub(crate) fn is_enabled(manager: &Value) -> Option<bool> {
    let oem = manager["Oem"].as_object()?;
    let (_, ami) = oem.iter().find(|(name, _)| name.eq_ignore_ascii_case("ami"))?;
    let status = ami["VirtualMedia"]["RMediaStatus"].as_str()?;
    Some(!status.eq_ignore_ascii_case("disabled"))
}
