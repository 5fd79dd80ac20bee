// SPDX-License-Identifier: AGPL-3.0-or-later
//! The boot override, proved by reading it back. Each action may be done twice.

use serde_json::{Value, json};

use crate::machine::http_boot_uri;
use crate::profile::Quirk;
use crate::{Bmc, Error, Machine, links};

/// The attributes of an iDRAC that are its boot override: whether it holds for one boot, and its device.
pub(crate) const IDRAC_BOOT: [&str; 2] = ["ServerBoot.1.BootOnce", FIRST_BOOT_DEVICE];
pub(crate) const FIRST_BOOT_DEVICE: &str = "ServerBoot.1.FirstBootDevice";
/// The device of no override.
pub(crate) const NO_DEVICE: &str = "Normal";

/// Where a change of the override was taken, and in which form.
struct Taken<'a> {
    path: &'a str,
    form: usize,
}

impl Bmc {
    /// The next boot, and only that one, is from CD, by UEFI.
    pub async fn set_boot_once_cd(&self, machine: &Machine) -> Result<(), Error> {
        if machine.profile.has(Quirk::BootByIdracAttributes) {
            return self.set_idrac_boot_once_cd(machine).await;
        }
        self.set_boot_once(machine, cd_target(machine), None, "set boot once from CD").await
    }

    /// The next boot, and only that one, is from what the firmware downloads there. Target and URL go
    /// together, as OpenStack's sushy sends them: sushy-tools 2.2 takes either alone and does something else.
    pub async fn set_boot_once_http(&self, machine: &Machine, uri: &str) -> Result<(), Error> {
        self.set_boot_once(machine, "UefiHttp", Some(uri), "set boot once by UEFI HTTP").await
    }

    async fn set_boot_once(
        &self,
        machine: &Machine,
        target: &str,
        uri: Option<&str>,
        what: &str,
    ) -> Result<(), Error> {
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
        let taken = self.patch_boot(machine, &[whole, without_mode]).await?;
        let has_mode = taken.form == 0;
        let stays = machine.profile.has(Quirk::BootOverrideStays);
        let shown: &[&str] = if stays { &["Once", "Continuous"] } else { &["Once"] };
        self.until(what, self.budgets.effect, taken.path, |resource| {
            let boot = &resource["Boot"];
            // Not every BMC shows the mode.
            let mode = boot["BootSourceOverrideMode"].as_str();
            boot["BootSourceOverrideEnabled"].as_str().is_some_and(|word| shown.contains(&word))
                && boot["BootSourceOverrideTarget"] == target
                && uri.is_none_or(|uri| http_boot_uri(resource) == Some(uri))
                && (!has_mode || mode.is_none_or(|mode| mode == "UEFI"))
        })
        .await
    }

    /// What the firmware downloads when it is told to.
    pub async fn http_boot_uri(&self, machine: &Machine) -> Result<Option<String>, Error> {
        let now = Some(machine.system_path.as_str());
        // What is set for the next boot is not shown by the system itself before that.
        let pending = future(machine).filter(|_| machine.profile.has(Quirk::BootInSettings));
        for path in [pending, now].into_iter().flatten() {
            if let Some(uri) = http_boot_uri(&self.get(path).await?.body) {
                return Ok(Some(uri.to_owned()));
            }
        }
        Ok(None)
    }

    /// The firmware has no URL to download from any more.
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
        let taken = self.patch_boot(machine, &forms).await?;
        self.until("clear HttpBootUri", self.budgets.effect, taken.path, |resource| {
            http_boot_uri(resource).is_none()
        })
        .await
    }

    /// The machine boots by its own order again.
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
        let system = self.get(&machine.system_path).await?.body;
        let is_pending = match future(machine) {
            Some(settings) if machine.profile.has(Quirk::BootInSettings) => {
                !is_clear(&self.get(settings).await?.body)
            }
            _ => false,
        };
        if is_clear(&system) && !is_pending {
            return Ok(());
        }
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
        let taken = self.patch_boot(machine, &forms).await?;
        self.until("clear the boot override", self.budgets.effect, taken.path, is_clear).await
    }

    /// Where an override cannot be taken back, only replaced.
    async fn set_boot_from_disk(&self, machine: &Machine) -> Result<(), Error> {
        let is_so = |system: &Value| system["Boot"]["BootSourceOverrideTarget"] != "Cd";
        if is_so(&self.get(&machine.system_path).await?.body) {
            return Ok(());
        }
        let disk = json!({"Boot": {
            "BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Hdd"
        }});
        let taken = self.patch_boot(machine, &[disk]).await?;
        self.until("set boot from disk", self.budgets.effect, taken.path, is_so).await
    }

    /// Patches the boot settings in the first place and form that the BMC takes.
    async fn patch_boot<'a>(
        &self,
        machine: &'a Machine,
        forms: &[Value],
    ) -> Result<Taken<'a>, Error> {
        let now = Some(machine.system_path.as_str());
        let places = if machine.profile.has(Quirk::BootInSettings) {
            [future(machine), now]
        } else {
            [now, future(machine)]
        };
        let mut last = Error::Unsupported("a boot override");
        for path in places.into_iter().flatten() {
            for (form, body) in forms.iter().enumerate() {
                match self.patch(path, body).await {
                    Ok(answer) => {
                        self.follow(answer).await?;
                        return Ok(Taken { path, form });
                    }
                    Err(error @ Error::Status { status: 400..=499, .. }) => last = error,
                    Err(error) => return Err(error),
                }
            }
        }
        Err(last)
    }

    /// The attributes are of the manager; what they say holds for the next boot.
    async fn set_idrac_boot_once_cd(&self, machine: &Machine) -> Result<(), Error> {
        let [once, device] = IDRAC_BOOT;
        let wanted = json!({once: "Enabled", device: "VCD-DVD"});
        self.set_idrac_attributes(machine, "set boot once from the virtual CD", &wanted).await
    }

    async fn clear_idrac_boot_once(&self, machine: &Machine) -> Result<(), Error> {
        let wanted = json!({FIRST_BOOT_DEVICE: NO_DEVICE});
        self.set_idrac_attributes(machine, "clear the boot override", &wanted).await
    }

    pub(crate) async fn set_idrac_attributes(
        &self,
        machine: &Machine,
        what: &str,
        wanted: &Value,
    ) -> Result<(), Error> {
        let path = idrac_attributes(machine)?;
        let is_so = |resource: &Value| {
            let wanted = wanted.as_object().into_iter().flatten();
            wanted.into_iter().all(|(name, value)| resource["Attributes"][name] == *value)
        };
        if is_so(&self.get(&path).await?.body) {
            return Ok(());
        }
        let answer = self.patch(&path, &json!({"Attributes": wanted})).await?;
        self.follow(answer).await?;
        self.until(what, self.budgets.effect, &path, is_so).await
    }
}

/// Supermicro calls virtual media UsbCd on most boards.
fn cd_target(machine: &Machine) -> &'static str {
    let has = |target: &str| machine.boot_targets.iter().any(|offered| offered == target);
    let is_usb = has("UsbCd") && (!has("Cd") || machine.profile.has(Quirk::BootTargetUsbCd));
    if is_usb { "UsbCd" } else { "Cd" }
}

/// The resource of future settings (DSP0266, 12.8).
pub(crate) fn future(machine: &Machine) -> Option<&str> {
    machine.settings_path.as_deref()
}

/// The attributes of an iDRAC that have its boot override.
pub(crate) fn idrac_attributes(machine: &Machine) -> Result<String, Error> {
    let manager = machine.manager_path.as_deref().ok_or(Error::Unsupported("a manager"))?;
    Ok(links::below(manager, "Attributes"))
}
