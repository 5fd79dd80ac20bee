// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is done to a machine. A 2xx answer proves nothing: each action ends when its effect can be
//! read, or with `NotEffective`. Each may be done twice.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use crate::machine::{power_of, slot_of};
use crate::transport::{Answer, foreign};
use crate::{Bmc, Error, Machine, Power, Slot};

/// How a machine is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Asks the running system first.
    Graceful,
    /// Takes the power away.
    Forced,
}

impl Bmc {
    /// Inserts a medium: ejects what is there, waits until the slot is empty, inserts, and waits
    /// until the BMC reports our URL. A slot that claims to hold it already is not believed: BMCs
    /// keep stale claims.
    pub async fn insert(&self, slot: &Slot, url: &Url) -> Result<(), Error> {
        let insert =
            slot.insert_path.as_deref().ok_or(Error::Unsupported("InsertMedia in this slot"))?;
        self.eject(slot).await?;
        match self.post_variants(insert, &insert_bodies(url)).await {
            Ok(answer) => self.follow(answer).await?,
            // The answer to the first request may have been lost, and the repeated one is refused
            // because the slot is taken: by us.
            Err(error @ Error::Status { .. }) => {
                let now = self.slot(slot).await?;
                let is_ours = now.inserted && now.image.as_deref() == Some(url.as_str());
                return if is_ours { Ok(()) } else { Err(error) };
            }
            Err(error) => return Err(error),
        }
        let what = format!("insert into {}", slot.path);
        // Some BMCs answer at once and download the medium after that.
        self.until(&what, self.budgets.insert, &slot.path, |body| {
            let now = slot_of(&slot.path, body);
            now.inserted && now.image.as_deref().is_none_or(|image| image == url.as_str())
        })
        .await
    }

    /// Empties a slot; an empty one is left alone.
    pub async fn eject(&self, slot: &Slot) -> Result<(), Error> {
        if !self.slot(slot).await?.inserted {
            return Ok(());
        }
        let eject =
            slot.eject_path.as_deref().ok_or(Error::Unsupported("EjectMedia in this slot"))?;
        // Most take no body, some demand an empty object; HPE answers 400 or 415 to one of them,
        // and plain HTTP servers 411 to none.
        match self.post_variants(eject, &[None, Some(json!({}))]).await {
            Ok(answer) => self.follow(answer).await?,
            // It may be gone all the same; the slot tells.
            Err(Error::Status { .. }) if !self.slot(slot).await?.inserted => {}
            Err(error) => return Err(error),
        }
        let what = format!("eject from {}", slot.path);
        self.until(&what, self.budgets.effect, &slot.path, |body| {
            !slot_of(&slot.path, body).inserted
        })
        .await
    }

    /// The next boot, and only that one, is from CD, by UEFI.
    pub async fn set_boot_once_cd(&self, machine: &Machine) -> Result<(), Error> {
        let targets = &machine.boot_targets;
        let has = |target: &str| targets.iter().any(|offered| offered == target);
        // Supermicro calls virtual media UsbCd on most boards.
        let target = if !targets.is_empty() && !has("Cd") && has("UsbCd") { "UsbCd" } else { "Cd" };
        let whole = json!({"Boot": {
            "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget": target,
            "BootSourceOverrideMode": "UEFI"
        }});
        let without_mode = json!({"Boot": {
            "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget": target
        }});
        let has_mode = self.patch_boot(machine, &[whole, without_mode]).await? == 0;
        let path = &machine.system_path;
        self.until("set boot once from CD", self.budgets.effect, path, |system| {
            let boot = &system["Boot"];
            // Not every BMC shows the mode.
            let mode = boot["BootSourceOverrideMode"].as_str();
            boot["BootSourceOverrideEnabled"] == "Once"
                && boot["BootSourceOverrideTarget"] == target
                && (!has_mode || mode.is_none_or(|mode| mode == "UEFI"))
        })
        .await
    }

    /// The machine boots by its own order again.
    pub async fn clear_boot_override(&self, machine: &Machine) -> Result<(), Error> {
        let is_clear = |system: &Value| {
            matches!(system["Boot"]["BootSourceOverrideEnabled"].as_str(), None | Some("Disabled"))
        };
        if is_clear(&self.get(&machine.system_path).await?.body) {
            return Ok(());
        }
        let bodies = [
            json!({"Boot": {"BootSourceOverrideEnabled": "Disabled"}}),
            json!({"Boot": {
                "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"
            }}),
        ];
        self.patch_boot(machine, &bodies).await?;
        let path = &machine.system_path;
        self.until("clear the boot override", self.budgets.effect, path, is_clear).await
    }

    pub async fn power_state(&self, machine: &Machine) -> Result<Power, Error> {
        Ok(power_of(&self.get(&machine.system_path).await?.body))
    }

    /// Off: with `Shutdown::Graceful` the system is asked first, and forced when it does not obey.
    pub async fn power_off(&self, machine: &Machine, shutdown: Shutdown) -> Result<(), Error> {
        if self.power_state(machine).await? == Power::Off {
            return Ok(());
        }
        if shutdown == Shutdown::Graceful
            && offers(machine, "GracefulShutdown")
            && self.reset(machine, "GracefulShutdown", Power::Off).await.is_ok()
            && self.until_power(machine, Power::Off, self.budgets.shutdown).await.is_ok()
        {
            return Ok(());
        }
        let kinds: &[&str] = if lists(machine, "PushPowerButton") && !offers(machine, "ForceOff") {
            &["PushPowerButton"]
        } else {
            &["ForceOff"]
        };
        self.reset_by_first(machine, kinds, Power::Off).await?;
        self.until_power(machine, Power::Off, self.budgets.effect).await
    }

    pub async fn power_on(&self, machine: &Machine) -> Result<(), Error> {
        if self.power_state(machine).await? == Power::On {
            return Ok(());
        }
        let mut kinds: Vec<&str> =
            ["On", "ForceOn"].into_iter().filter(|kind| offers(machine, kind)).collect();
        // Last, because it means something else on a machine that is on after all.
        kinds.extend(["PushPowerButton"].into_iter().filter(|kind| lists(machine, kind)));
        self.reset_by_first(machine, &kinds, Power::On).await?;
        self.until_power(machine, Power::On, self.budgets.effect).await
    }

    /// Resets in the first way that the BMC does not refuse.
    async fn reset_by_first(
        &self,
        machine: &Machine,
        kinds: &[&str],
        wanted: Power,
    ) -> Result<(), Error> {
        let mut last = Error::Unsupported("a reset type that switches the machine");
        for kind in kinds {
            match self.reset(machine, kind, wanted).await {
                Err(error @ Error::Status { status: 400 | 403..=405 | 409 | 422 | 501, .. }) => {
                    last = error;
                }
                result => return result,
            }
        }
        Err(last)
    }

    async fn reset(&self, machine: &Machine, kind: &str, wanted: Power) -> Result<(), Error> {
        let path =
            machine.reset_path.as_deref().ok_or(Error::Unsupported("ComputerSystem.Reset"))?;
        match self.post(path, &json!({"ResetType": kind})).await {
            Ok(answer) => self.follow(answer).await,
            // 400 or 409 because the state is reached already.
            Err(Error::Status { status: 400 | 409, .. })
                if self.power_state(machine).await? == wanted =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn until_power(
        &self,
        machine: &Machine,
        wanted: Power,
        budget: Duration,
    ) -> Result<(), Error> {
        let what = format!("power {wanted:?}");
        self.until(&what, budget, &machine.system_path, |system| power_of(system) == wanted).await
    }

    async fn slot(&self, slot: &Slot) -> Result<Slot, Error> {
        Ok(slot_of(&slot.path, &self.get(&slot.path).await?.body))
    }

    /// Patches the system's boot settings with the first body that the BMC takes; tells which.
    async fn patch_boot(&self, machine: &Machine, bodies: &[Value]) -> Result<usize, Error> {
        let mut last = Error::Unsupported("a boot override");
        for (index, body) in bodies.iter().enumerate() {
            // Lenovo and AMI refuse a PATCH without If-Match; others have no ETag.
            let etag = self.get(&machine.system_path).await?.etag;
            let patched =
                self.call(Method::PATCH, &machine.system_path, Some(body), etag.as_deref()).await;
            match patched {
                Ok(answer) => return self.follow(answer).await.map(|()| index),
                Err(error @ Error::Status { status: 400..=499, .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Posts the first body that the BMC does not call wrong.
    async fn post_variants(&self, path: &str, bodies: &[Option<Value>]) -> Result<Answer, Error> {
        let mut last = Error::Unsupported("this action");
        for body in bodies {
            match self.call(Method::POST, path, body.as_ref(), None).await {
                Ok(answer) => return Ok(answer),
                Err(error @ Error::Status { status: 400 | 411 | 415 | 422, .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Waits for the task of a 202 answer. A task that vanishes is no verdict: the effect is.
    async fn follow(&self, answer: Answer) -> Result<(), Error> {
        if answer.status != reqwest::StatusCode::ACCEPTED {
            return Ok(());
        }
        let link = answer.body["@odata.id"].as_str().map(str::to_owned).or(answer.location);
        let Some(path) = link else { return Ok(()) };
        let deadline = Instant::now() + self.budgets.insert;
        while Instant::now() < deadline {
            let (status, task) = match self.get(&path).await {
                Ok(answer) => (answer.status, answer.body),
                Err(Error::Status { status: 404 | 410, .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            match task["TaskState"].as_str() {
                Some("Exception" | "Killed" | "Cancelled" | "Interrupted") => {
                    let why = task["Messages"][0]["Message"].as_str().unwrap_or("no reason given");
                    let why = format!("the task failed: {}", foreign(why));
                    return Err(Error::BadAnswer { what: path, why });
                }
                Some("New" | "Starting" | "Running" | "Pending" | "Stopping" | "Suspended") => {
                    tokio::time::sleep(self.budgets.poll).await;
                }
                // A task monitor answers 202 until the operation is over (DSP0266, 12.2).
                None if status == reqwest::StatusCode::ACCEPTED => {
                    tokio::time::sleep(self.budgets.poll).await;
                }
                _ => return Ok(()),
            }
        }
        Err(Error::NotEffective { what: format!("task {path}"), budget: self.budgets.insert })
    }

    /// Reads `path` until it is as wanted.
    async fn until(
        &self,
        what: &str,
        budget: Duration,
        path: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + budget;
        while !is_so(&self.get(path).await?.body) {
            if Instant::now() > deadline {
                return Err(Error::NotEffective { what: what.into(), budget });
            }
            tokio::time::sleep(self.budgets.poll).await;
        }
        Ok(())
    }
}

/// Whether a reset type may be asked for; a BMC that lists none takes the common ones.
fn offers(machine: &Machine, kind: &str) -> bool {
    machine.reset_types.is_empty() || lists(machine, kind)
}

/// Whether the BMC says that it takes a reset type.
fn lists(machine: &Machine, kind: &str) -> bool {
    machine.reset_types.iter().any(|offered| offered == kind)
}

/// Plain first: many BMCs refuse what they do not know, and others demand it.
fn insert_bodies(url: &Url) -> [Option<Value>; 4] {
    let image = url.as_str();
    let protocol = url.scheme().to_ascii_uppercase();
    [
        json!({"Image": image}),
        json!({"Image": image, "Inserted": true, "WriteProtected": true}),
        json!({"Image": image, "TransferProtocolType": protocol}),
        json!({"Image": image, "TransferProtocolType": protocol, "TransferMethod": "Stream"}),
    ]
    .map(Some)
}
