// SPDX-License-Identifier: AGPL-3.0-or-later
//! The original boot override: read before it is changed, and restored afterwards. Setting and clearing the caller's
//! own override is in `boot`.
//!
//! A system has one override. A system with an object of future settings (DSP0266, 12.8) may have another one there,
//! for its next boot. An old iDRAC has neither, but attributes of its manager.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::boot::{FIRST_BOOT_DEVICE, IDRAC_BOOT, NO_DEVICE, future, idrac_attributes};
use crate::profile::Quirk;
use crate::{Bmc, Error, Machine};

/// Names of the properties of `Boot`.
const ENABLED: &str = "BootSourceOverrideEnabled";
const TARGET: &str = "BootSourceOverrideTarget";
const MODE: &str = "BootSourceOverrideMode";
const HTTP_BOOT_URI: &str = "HttpBootUri";
/// The value of `BootSourceOverrideEnabled` without an override.
const DISABLED: &str = "Disabled";
/// The value of `BootSourceOverrideEnabled` for an override that the next boot consumes.
const ONCE: &str = "Once";
/// Targets that need a further property, and that property.
const NEEDED: &[(&str, &str)] =
    &[("UefiTarget", "UefiTargetBootSourceOverride"), ("UefiBootNext", "BootNext")];

/// Longest value that is read and restored: URLs and device paths are shorter.
const TEXT_BYTES_MAX: usize = 2048;
/// Longest part of a value that is displayed: shorter than any of our secrets.
const SHOWN_CHARS_MAX: usize = 24;

/// A boot override, as a BMC shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOverride {
    /// `Disabled`, `Once` or `Continuous`.
    pub enabled: String,
    /// Such as `Pxe`. Meaningless while the override is disabled.
    pub target: String,
    /// `UEFI` or `Legacy`, also while the override is disabled. `None` if the BMC does not show it.
    pub mode: Option<String>,
    /// Further properties that belong to it, such as the URL of an HTTP boot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// All boot overrides of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSettings {
    pub now: BootOverride,
    /// The override in the settings for the next boot, if those have one of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<BootOverride>,
}

impl BootOverride {
    /// No override, in this mode.
    pub fn none(mode: Option<&str>) -> BootOverride {
        BootOverride {
            enabled: DISABLED.into(),
            target: "None".into(),
            mode: mode.map(str::to_owned),
            details: BTreeMap::new(),
        }
    }

    /// Reads the override from the `Boot` object of a resource.
    pub(crate) fn of(resource: &Value) -> BootOverride {
        let boot = &resource["Boot"];
        let is_text = |text: &&str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
        let text = |name: &str| boot[name].as_str().filter(is_text);
        let target = text(TARGET).unwrap_or("None");
        let needed = NEEDED.iter().filter(|(of, _)| *of == target).map(|(_, name)| *name);
        let details = needed.chain([HTTP_BOOT_URI]);
        BootOverride {
            enabled: text(ENABLED).unwrap_or(DISABLED).to_owned(),
            target: target.to_owned(),
            mode: text(MODE).map(str::to_owned),
            details: details
                .filter_map(|name| Some((name.to_owned(), text(name)?.to_owned())))
                .collect(),
        }
    }

    /// Reads the override from the attributes of an iDRAC.
    fn of_attributes(attributes: &Value) -> BootOverride {
        let is_text = |text: &&str| text.len() <= TEXT_BYTES_MAX;
        let text = |name: &str| attributes[name].as_str().filter(is_text).map(str::to_owned);
        let target = text(FIRST_BOOT_DEVICE).unwrap_or_else(|| NO_DEVICE.into());
        let is_once = text(IDRAC_BOOT[0]).is_none_or(|word| word == "Enabled");
        let enabled = match (target == NO_DEVICE, is_once) {
            (true, _) => DISABLED,
            (false, true) => ONCE,
            (false, false) => "Continuous",
        };
        let details = IDRAC_BOOT.iter().filter_map(|name| Some(((*name).to_owned(), text(name)?)));
        BootOverride { enabled: enabled.into(), target, mode: None, details: details.collect() }
    }

    pub fn is_set(&self) -> bool {
        self.enabled != DISABLED
    }

    /// Whether the next boot consumes it.
    pub fn is_once(&self) -> bool {
        self.enabled == ONCE
    }

    pub fn is_legacy(&self) -> bool {
        self.mode.as_deref().is_some_and(|mode| mode != "UEFI")
    }

    /// Whether it boots from an optical drive or by HTTP, which is where installers are booted from.
    pub fn leads_to_medium(&self) -> bool {
        self.is_set() && matches!(self.target.as_str(), "Cd" | "UsbCd" | "UefiHttp" | "VCD-DVD")
    }

    /// Whether it has a URL for an HTTP boot, used or not.
    pub fn has_url(&self) -> bool {
        self.details.contains_key(HTTP_BOOT_URI)
    }

    /// The same mode and URL without an override.
    #[must_use]
    pub fn cleared(&self) -> BootOverride {
        let mut none = BootOverride::none(self.mode.as_deref());
        none.details = self.details.clone();
        none.details.retain(|name, _| name == HTTP_BOOT_URI);
        none
    }

    /// Whether the resource shows this override. Not every BMC shows the mode.
    fn is_shown_in(&self, resource: &Value) -> bool {
        let boot = &resource["Boot"];
        let shown = BootOverride::of(resource);
        shown.enabled == self.enabled
            && (!self.is_set() || shown.target == self.target)
            && (self.mode.is_none() || shown.mode.is_none() || shown.mode == self.mode)
            && self.details.iter().all(|(name, text)| boot[name] == text.as_str())
    }

    /// PATCH bodies to try: the complete one, then one without the mode, which some BMCs refuse.
    fn forms(&self) -> Vec<Value> {
        let mut parts: Map<String, Value> = Map::new();
        parts.insert(ENABLED.into(), self.enabled.as_str().into());
        parts.insert(TARGET.into(), self.target.as_str().into());
        for (name, text) in &self.details {
            parts.insert(name.clone(), text.as_str().into());
        }
        let Some(mode) = &self.mode else { return vec![json!({"Boot": parts})] };
        let mut whole = parts.clone();
        whole.insert(MODE.into(), mode.as_str().into());
        let mut forms = vec![json!({"Boot": whole})];
        if self.is_set() {
            forms.push(json!({"Boot": parts}));
        } else {
            // Some BMCs refuse the target `None`.
            whole.remove(TARGET);
            forms.push(json!({"Boot": whole}));
        }
        forms
    }
}

impl fmt::Display for BootOverride {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.is_set() {
            true => {
                write!(f, "boot override {} from {}", shown(&self.enabled), shown(&self.target))?;
            }
            false => f.write_str("no boot override")?,
        }
        match &self.mode {
            Some(mode) => write!(f, ", mode {}", shown(mode)),
            None => Ok(()),
        }
    }
}

/// A value from the BMC, reduced to the characters that such values contain.
fn shown(text: &str) -> String {
    let is_of_words = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.');
    text.chars().filter(is_of_words).take(SHOWN_CHARS_MAX).collect()
}

impl BootSettings {
    /// Applies `change` to each override.
    #[must_use]
    pub fn map(&self, change: impl Fn(&BootOverride) -> BootOverride) -> BootSettings {
        BootSettings { now: change(&self.now), pending: self.pending.as_ref().map(change) }
    }

    pub fn any(&self, is_so: impl Fn(&BootOverride) -> bool) -> bool {
        self.each().any(is_so)
    }

    pub fn each(&self) -> impl Iterator<Item = &BootOverride> {
        std::iter::once(&self.now).chain(&self.pending)
    }
}

impl fmt::Display for BootSettings {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.pending {
            Some(pending) if *pending != self.now => {
                write!(f, "{}; for the next boot: {pending}", self.now)
            }
            _ => write!(f, "{}", self.now),
        }
    }
}

impl Bmc {
    /// Reads the current boot overrides.
    pub async fn boot_settings(&self, machine: &Machine) -> Result<BootSettings, Error> {
        if machine.profile.has(Quirk::BootByIdracAttributes) {
            let attributes = self.get(&idrac_attributes(machine)?).await?.body;
            let now = BootOverride::of_attributes(&attributes["Attributes"]);
            return Ok(BootSettings { now, pending: None });
        }
        let now = BootOverride::of(&self.look(&machine.system_path).await?.body);
        let pending = match future(machine) {
            Some(settings) => match self.get(settings).await {
                Ok(answer) => {
                    answer.body["Boot"][ENABLED].is_string().then(|| BootOverride::of(&answer.body))
                }
                // The linked resource does not exist, so nothing is set in it.
                Err(Error::Status { status: 404 | 405 | 501, .. }) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        Ok(BootSettings { now, pending })
    }

    /// Restores the boot overrides. Those that are right already are not written.
    pub async fn put_boot_back(
        &self,
        machine: &Machine,
        wanted: &BootSettings,
    ) -> Result<(), Error> {
        if machine.profile.has(Quirk::BootByIdracAttributes) {
            return self.put_attributes_back(machine, &wanted.now).await;
        }
        if wanted.each().all(|one| !one.is_set()) {
            self.clear_boot_override(machine).await?;
        }
        // The future settings come first: if both places show the same override, both are right after that.
        let pending = wanted.pending.as_ref().zip(future(machine));
        let is_only_pending = pending.is_some() && machine.profile.has(Quirk::BootInSettings);
        let now = Some((&wanted.now, machine.system_path.as_str())).filter(|_| !is_only_pending);
        let places = || pending.into_iter().chain(now);
        let mut refused = None;
        for (wanted, path) in places() {
            let put = self.put_boot_back_at(machine, path, wanted).await;
            refused = refused.or(put.err());
        }
        let Some(error) = refused else { return Ok(()) };
        // Writing one place may have changed the other too.
        for (wanted, path) in places() {
            if !self.is_override(machine, path, wanted).await? {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn put_boot_back_at(
        &self,
        machine: &Machine,
        path: &str,
        wanted: &BootOverride,
    ) -> Result<(), Error> {
        if self.is_override(machine, path, wanted).await? {
            return Ok(());
        }
        self.patch_first(path, &wanted.forms()).await?;
        self.until_override(machine, path, wanted).await
    }

    async fn until_override(
        &self,
        machine: &Machine,
        path: &str,
        wanted: &BootOverride,
    ) -> Result<(), Error> {
        let what = format!("put back: {wanted}");
        let is_so = |resource: &Value| is_in(machine, wanted, resource);
        match self.until(&what, self.budgets.effect, path, is_so).await {
            // Some BMCs keep the mode of the last override. Further attempts do not help.
            Err(Error::NotEffective { .. }) if !wanted.is_set() => {
                Err(Error::Unsupported("another boot mode while no override is set"))
            }
            result => result,
        }
    }

    async fn is_override(
        &self,
        machine: &Machine,
        path: &str,
        wanted: &BootOverride,
    ) -> Result<bool, Error> {
        Ok(is_in(machine, wanted, &self.get(path).await?.body))
    }

    async fn put_attributes_back(
        &self,
        machine: &Machine,
        wanted: &BootOverride,
    ) -> Result<(), Error> {
        if wanted.details.is_empty() {
            return self.clear_boot_override(machine).await;
        }
        let what = format!("put back: {wanted}");
        self.set_idrac_attributes(machine, &what, &json!(wanted.details)).await.map(drop)
    }
}

/// Whether a resource shows the wanted override. On BMCs where an override can only be replaced, any other override
/// counts as none.
fn is_in(machine: &Machine, wanted: &BootOverride, resource: &Value) -> bool {
    let is_replaced = machine.profile.has(Quirk::BootOverrideStays) && !wanted.is_set();
    is_replaced || wanted.is_shown_in(resource)
}
