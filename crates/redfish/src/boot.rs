// SPDX-License-Identifier: AGPL-3.0-or-later
//! Setting and clearing the boot override, confirmed by reading it back. Each action may be repeated. Where it is
//! written is in `boot_places`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::boot_places::Change;
use crate::machine::http_boot_uri;
use crate::profile::Quirk;
use crate::{Bmc, Error, Machine, links};

/// The iDRAC attributes that form its boot override: whether it applies to one boot only, and its device.
pub(crate) const IDRAC_BOOT: [&str; 2] = ["ServerBoot.1.BootOnce", FIRST_BOOT_DEVICE];
pub(crate) const FIRST_BOOT_DEVICE: &str = "ServerBoot.1.FirstBootDevice";
/// The device value for no override.
pub(crate) const NO_DEVICE: &str = "Normal";

impl Bmc {
    /// Sets the next boot, and only that one, to the CD in UEFI mode. Returns the resource that shows it.
    pub async fn set_boot_once_cd(&self, machine: &Machine) -> Result<String, Error> {
        if machine.profile.has(Quirk::BootByIdracAttributes) {
            return self.set_idrac_boot_once_cd(machine).await;
        }
        self.set_boot_once(machine, cd_target(machine), None, "set boot once from CD").await
    }

    /// Sets the next boot, and only that one, to an HTTP boot from `uri`. Target and URL are sent together, as
    /// OpenStack's sushy does: sushy-tools 2.2 accepts either of them alone, but does something else. Returns the
    /// resource that shows it.
    pub async fn set_boot_once_http(&self, machine: &Machine, uri: &str) -> Result<String, Error> {
        self.set_boot_once(machine, "UefiHttp", Some(uri), "set boot once by UEFI HTTP").await
    }

    async fn set_boot_once(
        &self,
        machine: &Machine,
        target: &str,
        uri: Option<&str>,
        what: &str,
    ) -> Result<String, Error> {
        let mut whole = json!({"Boot": {
            "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget": target,
            "BootSourceOverrideMode": "UEFI"
        }});
        if let Some(uri) = uri {
            whole["Boot"]["HttpBootUri"] = uri.into();
        }
        let mut without_mode = whole.clone();
        if let Some(boot) = without_mode["Boot"].as_object_mut() {
            boot.remove("BootSourceOverrideMode");
        }
        let stays = machine.profile.has(Quirk::BootOverrideStays);
        let shown: &[&str] = if stays { &["Once", "Continuous"] } else { &["Once"] };
        let is_so = |resource: &Value, form| {
            let boot = &resource["Boot"];
            // Not every BMC shows the mode.
            let mode = boot["BootSourceOverrideMode"].as_str();
            boot["BootSourceOverrideEnabled"].as_str().is_some_and(|word| shown.contains(&word))
                && boot["BootSourceOverrideTarget"] == target
                && uri.is_none_or(|uri| http_boot_uri(resource) == Some(uri))
                && (form != 0 || mode.is_none_or(|mode| mode == "UEFI"))
        };
        let change = Change { what, forms: &[whole, without_mode], is_so, shown_at: None };
        let places = machine.boot_places(Some(target));
        match self.change_boot(&places, &change).await {
            Ok(path) => Ok(path.to_owned()),
            Err(error) => Err(self.explained(machine, error).await),
        }
    }

    /// The URL that the firmware downloads in an HTTP boot.
    pub async fn http_boot_uri(&self, machine: &Machine) -> Result<Option<String>, Error> {
        let shown = self.boot_shown(machine).await?;
        Ok(shown.iter().find_map(|(_, body)| http_boot_uri(body)).map(str::to_owned))
    }

    /// The boot settings in each of their places. A setting for the next boot may be shown only in the future
    /// settings. If those cannot be read, the system's own settings are used alone.
    async fn boot_shown<'a>(
        &self,
        machine: &'a Machine,
    ) -> Result<Vec<(&'a str, Arc<Value>)>, Error> {
        let mut shown = Vec::new();
        for path in machine.boot_places(None) {
            if path == machine.system_path {
                shown.push((path, self.get(path).await?.body));
            } else if let Ok(answer) = self.read_optional(path).await? {
                shown.push((path, answer.body));
            }
        }
        Ok(shown)
    }

    /// Makes a change in each place that does not show it yet; the change may be written to either place. Once the
    /// future settings show it, the system's own settings are ignored: they are the current values, which apply until
    /// the next boot.
    async fn change_boot_shown<F>(
        &self,
        machine: &Machine,
        what: &str,
        forms: &[Value],
        is_so: F,
    ) -> Result<(), Error>
    where
        F: Fn(&Value) -> bool,
    {
        let shown = self.boot_shown(machine).await?;
        let mut left: Vec<&str> =
            shown.iter().filter(|(_, body)| !is_so(body)).map(|(path, _)| *path).collect();
        if left.first().is_some_and(|path| *path != machine.system_path) {
            left.truncate(1);
        }
        for (nth, path) in left.into_iter().enumerate() {
            // The previous change may have reached this place too.
            if nth > 0 && is_so(&self.get(path).await?.body) {
                continue;
            }
            let mut places = machine.boot_places(None);
            places.sort_by_key(|place| *place != path);
            let is_so = |resource: &Value, _form| is_so(resource);
            let change = Change { what, forms, is_so, shown_at: Some(path) };
            if let Err(error) = self.change_boot(&places, &change).await {
                return Err(self.explained(machine, error).await);
            }
        }
        Ok(())
    }

    /// Removes the URL for an HTTP boot.
    pub async fn clear_http_boot_uri(&self, machine: &Machine) -> Result<(), Error> {
        let empty = json!({"Boot": {"HttpBootUri": ""}});
        let null = json!({"Boot": {"HttpBootUri": null}});
        let whole = json!({"Boot": {
            "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
            "BootSourceOverrideMode": "UEFI", "HttpBootUri": ""
        }});
        let forms = match machine.profile.has(Quirk::BootWhole) {
            true => [whole, empty, null],
            false => [empty, null, whole],
        };
        let is_so = |resource: &Value| http_boot_uri(resource).is_none();
        self.change_boot_shown(machine, "clear HttpBootUri", &forms, is_so).await
    }

    /// Removes the boot override, so that the machine boots in its own order again.
    pub async fn clear_boot_override(&self, machine: &Machine) -> Result<(), Error> {
        let is_clear = |resource: &Value| {
            matches!(
                resource["Boot"]["BootSourceOverrideEnabled"].as_str(),
                None | Some("Disabled")
            )
        };
        if machine.profile.has(Quirk::BootByIdracAttributes) {
            return self.clear_idrac_boot_once(machine).await;
        }
        if machine.profile.has(Quirk::BootOverrideStays) {
            return self.set_boot_from_disk(machine).await;
        }
        let system = self.look(&machine.system_path).await?.body;
        let only = json!({"Boot": {"BootSourceOverrideEnabled": "Disabled"}});
        let with_target = json!({"Boot": {
            "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"
        }});
        let mut whole = with_target.clone();
        let mode = system["Boot"]["BootSourceOverrideMode"].as_str().unwrap_or("UEFI");
        whole["Boot"]["BootSourceOverrideMode"] = mode.into();
        let forms = if machine.profile.has(Quirk::BootWhole) {
            [whole, with_target, only]
        } else {
            [only, with_target, whole]
        };
        self.change_boot_shown(machine, "clear the boot override", &forms, is_clear).await
    }

    /// For BMCs on which an override cannot be removed, only replaced.
    async fn set_boot_from_disk(&self, machine: &Machine) -> Result<(), Error> {
        let is_so = |system: &Value| system["Boot"]["BootSourceOverrideTarget"] != "Cd";
        let disk = json!({"Boot": {
            "BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Hdd"
        }});
        self.change_boot_shown(machine, "set boot from disk", &[disk], is_so).await
    }

    /// Writes attributes of the manager, which apply to the next boot.
    async fn set_idrac_boot_once_cd(&self, machine: &Machine) -> Result<String, Error> {
        let [once, device] = IDRAC_BOOT;
        let wanted = json!({once: "Enabled", device: "VCD-DVD"});
        self.set_idrac_attributes(machine, "set boot once from the virtual CD", &wanted).await
    }

    async fn clear_idrac_boot_once(&self, machine: &Machine) -> Result<(), Error> {
        let wanted = json!({FIRST_BOOT_DEVICE: NO_DEVICE});
        self.set_idrac_attributes(machine, "clear the boot override", &wanted).await.map(drop)
    }

    pub(crate) async fn set_idrac_attributes(
        &self,
        machine: &Machine,
        what: &str,
        wanted: &Value,
    ) -> Result<String, Error> {
        let path = idrac_attributes(machine)?;
        let is_so = |resource: &Value| {
            let wanted = wanted.as_object().into_iter().flatten();
            wanted.into_iter().all(|(name, value)| resource["Attributes"][name] == *value)
        };
        if is_so(&self.get(&path).await?.body) {
            return Ok(path);
        }
        let answer = self.patch(&path, &json!({"Attributes": wanted})).await?;
        self.follow(answer).await?;
        self.until(what, self.budgets.effect, &path, is_so).await?;
        Ok(path)
    }
}

/// The target for virtual media, which is `UsbCd` on most Supermicro boards.
fn cd_target(machine: &Machine) -> &'static str {
    let is_usb = machine.lists_target("UsbCd")
        && (!machine.lists_target("Cd") || machine.profile.has(Quirk::BootTargetUsbCd));
    if is_usb { "UsbCd" } else { "Cd" }
}

/// The resource of future settings (DSP0266, 12.8).
pub(crate) fn future(machine: &Machine) -> Option<&str> {
    machine.settings_path.as_deref()
}

/// The resource with the iDRAC attributes for the boot override.
pub(crate) fn idrac_attributes(machine: &Machine) -> Result<String, Error> {
    let manager = machine.manager_path.as_deref().ok_or(Error::Unsupported("a manager"))?;
    Ok(links::below(manager, "Attributes"))
}
