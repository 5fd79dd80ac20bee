// SPDX-License-Identifier: AGPL-3.0-or-later
//! Remote media as a service of the BMC, which may be switched off: then it has no slots, or they refuse every
//! medium. Only AMI's BMCs are known for that, whoever's name they bear: `Oem.Ami.VirtualMedia.RMediaStatus` of the
//! manager says so, and its action `AMIVirtualMedia.EnableRMedia` switches. The change takes some seconds, and the
//! slots come later still. Switching is in `media_switch`.
//!
//! Sources: public clients and set-up scripts for MegaRAC boards (status, action, its parameter `RMediaState`);
//! Lenovo's documentation of the ThinkSystem System Manager of SR635 and SR655 (AMI's actions of the manager take four
//! to five seconds).

use serde_json::Value;

/// What the action's name ends in; a `#` comes before it.
const ACTION: &str = "AMIVirtualMedia.EnableRMedia";

/// The service, of a BMC that tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteMedia {
    pub is_enabled: bool,
    /// What switches it; `None` where the BMC offers nothing.
    pub(crate) switch: Option<String>,
}

impl RemoteMedia {
    /// As the manager shows it; some firmware has the action at the system.
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

/// `None` where the manager does not say.
pub(crate) fn is_enabled(manager: &Value) -> Option<bool> {
    let oem = manager["Oem"].as_object()?;
    let (_, ami) = oem.iter().find(|(name, _)| name.eq_ignore_ascii_case("ami"))?;
    let status = ami["VirtualMedia"]["RMediaStatus"].as_str()?;
    Some(!status.eq_ignore_ascii_case("disabled"))
}
