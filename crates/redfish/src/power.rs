// SPDX-License-Identifier: AGPL-3.0-or-later
//! Power control, confirmed by reading the state back. Each action may be repeated.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::machine::{as_now, power_of};
use crate::{Bmc, Cause, Error, Machine, Power};

/// The reset type whose effect depends on the power state.
const BUTTON: &str = "PushPowerButton";

/// How a machine is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Asks the running operating system.
    Graceful,
    /// Cuts the power.
    Forced,
}

/// How a running machine is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Asks the running operating system.
    Graceful,
    /// Immediately, like its reset button.
    Forced,
    /// Cuts the power and restores it.
    PowerCycle,
}

impl Restart {
    /// The reset types that do this in one request, the best first.
    fn reset_types(self) -> &'static [&'static str] {
        match self {
            Restart::Graceful => &["GracefulRestart"],
            Restart::Forced => &["ForceRestart", "PowerCycle"],
            Restart::PowerCycle => &["PowerCycle", "FullPowerCycle"],
        }
    }

    /// How the machine is switched off if the BMC supports none of them.
    fn shutdown(self) -> Shutdown {
        match self {
            Restart::Graceful => Shutdown::Graceful,
            Restart::Forced | Restart::PowerCycle => Shutdown::Forced,
        }
    }
}

impl Bmc {
    pub async fn power_state(&self, machine: &Machine) -> Result<Power, Error> {
        Ok(power_of(&self.get(power_path(machine)).await?.body).unwrap_or(Power::Changing))
    }

    /// Reads the machine at the start of a change, unless it was read a moment ago.
    async fn look_again(&self, machine: &Machine) -> Result<Machine, Error> {
        let system = self.look(&machine.system_path).await?.body;
        let told = match &machine.power_path {
            Some(path) => self.look(path).await?.body,
            None => system.clone(),
        };
        Ok(as_now(machine, &system, &told))
    }

    /// Switches off. With `Shutdown::Graceful` the system is asked first, and power is forced off if it does not
    /// obey.
    pub async fn power_off(&self, machine: &Machine, shutdown: Shutdown) -> Result<(), Error> {
        let machine = &self.look_again(machine).await?;
        if machine.power == Power::Off {
            return Ok(());
        }
        if shutdown == Shutdown::Graceful
            && offers(machine, "GracefulShutdown")
            && self.reset(machine, "GracefulShutdown", Some(Power::Off)).await.is_ok()
            && self.until_power(machine, Power::Off, self.budgets.shutdown).await.is_ok()
        {
            return Ok(());
        }
        let kinds: &[&str] = if lists(machine, BUTTON) && !offers(machine, "ForceOff") {
            &[BUTTON]
        } else {
            &["ForceOff"]
        };
        self.reset_by_first(machine, kinds, Some(Power::Off)).await?;
        self.until_power(machine, Power::Off, self.budgets.effect).await
    }

    pub async fn power_on(&self, machine: &Machine) -> Result<(), Error> {
        let machine = &self.look_again(machine).await?;
        if machine.power == Power::On {
            return Ok(());
        }
        const ON: [&str; 2] = ["On", "ForceOn"];
        let mut kinds: Vec<&str> = ON.into_iter().filter(|kind| offers(machine, kind)).collect();
        // Last, because it would switch off a machine that is on after all.
        kinds.extend([BUTTON].into_iter().filter(|kind| lists(machine, kind)));
        // The list may still be that of another power state.
        if kinds.is_empty() {
            kinds.extend(ON);
        }
        self.reset_by_first(machine, &kinds, Some(Power::On)).await?;
        self.until_power(machine, Power::On, self.budgets.effect).await
    }

    /// Restarts a machine; a machine that is off is switched on. Uses a reset type that the BMC offers, or else power
    /// off and on. That the machine is on afterwards is read back. That it has restarted is only the BMC's statement.
    pub async fn restart(&self, machine: &Machine, restart: Restart) -> Result<(), Error> {
        if self.look_again(machine).await?.power == Power::Off {
            return self.power_on(machine).await;
        }
        let kinds = restart.reset_types().iter().copied();
        let offered: Vec<&str> = kinds.filter(|kind| offers(machine, kind)).collect();
        match self.reset_by_first(machine, &offered, None).await {
            Ok(()) => self.until_power(machine, Power::On, self.budgets.effect).await,
            // Power off and on would have the same result.
            Err(error) if error.is_of_bmc() => Err(error),
            Err(
                Error::Unsupported(_) | Error::Status { status: 400 | 403..=405 | 422 | 501, .. },
            ) => {
                self.power_off(machine, restart.shutdown()).await?;
                self.power_on(machine).await
            }
            Err(error) => Err(error),
        }
    }

    /// Resets with the first type that the BMC does not refuse. If one of them conflicts with what the BMC is still
    /// doing, all of them are tried again: some return 409 for a minute after a power-off (OpenStack ironic,
    /// 238c9e0cc), others refuse while the machine is in POST. `wanted` is the power state that makes the reset
    /// unnecessary, if there is one.
    async fn reset_by_first(
        &self,
        machine: &Machine,
        kinds: &[&str],
        wanted: Option<Power>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + self.budgets.effect;
        loop {
            let (mut last, mut is_busy) = (None, false);
            for kind in kinds {
                // If the machine has reached the wanted state by itself, the button would undo it.
                if *kind == BUTTON && Some(self.power_state(machine).await?) == wanted {
                    return Ok(());
                }
                match self.reset(machine, kind, wanted).await {
                    // No other type would have another result.
                    Err(error) if error.is_of_bmc() => {
                        is_busy = error.is_busy();
                        last = Some(error);
                        break;
                    }
                    Err(
                        error @ Error::Status { status: 400 | 403..=405 | 409 | 422 | 501, .. },
                    ) => {
                        is_busy |= error.is_busy();
                        last = Some(error);
                    }
                    result => return result,
                }
            }
            let missing = Error::Unsupported("a reset type that switches the machine");
            if !is_busy || Instant::now() + self.budgets.conflict > deadline {
                return Err(self.explained(machine, last.unwrap_or(missing)).await);
            }
            tokio::time::sleep(self.budgets.conflict).await;
        }
    }

    /// Adds the cause to an error if the state of the machine shows it: not every BMC that refuses a request in POST
    /// says so.
    pub(crate) async fn explained(&self, machine: &Machine, error: Error) -> Error {
        let Error::Status { status: 400 | 403 | 409 | 500, cause: None, .. } = &error else {
            return error;
        };
        match self.get(&machine.system_path).await {
            Ok(system) if is_in_post(&system.body) => error.with_cause(Cause::InPost),
            Ok(_) | Err(_) => error,
        }
    }

    async fn reset(
        &self,
        machine: &Machine,
        kind: &str,
        wanted: Option<Power>,
    ) -> Result<(), Error> {
        let path =
            machine.reset_path.as_deref().ok_or(Error::Unsupported("ComputerSystem.Reset"))?;
        match self.post(path, &json!({"ResetType": kind})).await {
            Ok(answer) => self.follow(answer).await,
            // The BMC refused because the state is already reached.
            Err(Error::Status { status: 400 | 409, .. })
                if Some(self.power_state(machine).await?) == wanted =>
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
        let (what, path) = (format!("power {wanted:?}"), power_path(machine));
        let result =
            self.until(&what, budget, path, |resource| power_of(resource) == Some(wanted)).await;
        match result {
            Err(Error::NotEffective { .. }) if power_of(&self.look(path).await?.body).is_none() => {
                Err(Error::PowerUntold { path: self.foreign(path) })
            }
            result => result,
        }
    }
}

/// Whether a system that is on reports that it is in POST: by `BootProgress.LastState` (ComputerSystem 1.13.0), or by
/// iLO's `PostState`.
fn is_in_post(system: &Value) -> bool {
    const STATES: &[&str] = &[
        "PrimaryProcessorInitializationStarted",
        "BusInitializationStarted",
        "MemoryInitializationStarted",
        "SecondaryProcessorInitializationStarted",
        "PCIResourceConfigStarted",
    ];
    let state = system["BootProgress"]["LastState"].as_str();
    let oem = &system["Oem"];
    let post = oem["Hpe"]["PostState"].as_str().or(oem["Hp"]["PostState"].as_str());
    let is_at_work = state.is_some_and(|state| STATES.contains(&state))
        || matches!(post, Some("InPost" | "InPostDiscoveryComplete"));
    is_at_work && power_of(system) == Some(Power::On)
}

/// The resource with the machine's power state.
fn power_path(machine: &Machine) -> &str {
    machine.power_path.as_deref().unwrap_or(&machine.system_path)
}

/// Whether a reset type may be requested. A BMC that lists none accepts the common ones.
fn offers(machine: &Machine, kind: &str) -> bool {
    machine.reset_types.is_empty() || lists(machine, kind)
}

/// Whether the BMC lists a reset type.
fn lists(machine: &Machine, kind: &str) -> bool {
    machine.reset_types.iter().any(|offered| offered == kind)
}
