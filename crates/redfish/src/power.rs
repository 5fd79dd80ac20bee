// SPDX-License-Identifier: AGPL-3.0-or-later
//! Power, proved by reading it back. Each action may be done twice.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::machine::{as_now, power_of};
use crate::{Bmc, Cause, Error, Machine, Power};

/// The reset type that means another thing in each state.
const BUTTON: &str = "PushPowerButton";

/// How a machine is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Asks the running system first.
    Graceful,
    /// Takes the power away.
    Forced,
}

/// How a machine that is on is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Asks the running system first.
    Graceful,
    /// At once, as its reset button does.
    Forced,
    /// Takes the power away and gives it again.
    PowerCycle,
}

impl Restart {
    /// The reset types that do it in one request, the best first.
    fn reset_types(self) -> &'static [&'static str] {
        match self {
            Restart::Graceful => &["GracefulRestart"],
            Restart::Forced => &["ForceRestart", "PowerCycle"],
            Restart::PowerCycle => &["PowerCycle", "FullPowerCycle"],
        }
    }

    /// How the machine is switched off where the BMC has none of them.
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

    /// As a change begins with it: read again unless that was a moment ago.
    async fn look_again(&self, machine: &Machine) -> Result<Machine, Error> {
        let system = self.look(&machine.system_path).await?.body;
        let told = match &machine.power_path {
            Some(path) => self.look(path).await?.body,
            None => system.clone(),
        };
        Ok(as_now(machine, &system, &told))
    }

    /// Off: with `Shutdown::Graceful` the system is asked first, and forced when it does not obey.
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
        // Last, because it means something else on a machine that is on after all.
        kinds.extend([BUTTON].into_iter().filter(|kind| lists(machine, kind)));
        // A list that is still of another power state.
        if kinds.is_empty() {
            kinds.extend(ON);
        }
        self.reset_by_first(machine, &kinds, Some(Power::On)).await?;
        self.until_power(machine, Power::On, self.budgets.effect).await
    }

    /// Starts a machine anew; one that is off is switched on. A reset type that the BMC offers, or else off and on.
    /// That the machine is on afterwards is read back; that it started anew is the BMC's word.
    pub async fn restart(&self, machine: &Machine, restart: Restart) -> Result<(), Error> {
        if self.look_again(machine).await?.power == Power::Off {
            return self.power_on(machine).await;
        }
        let kinds = restart.reset_types().iter().copied();
        let offered: Vec<&str> = kinds.filter(|kind| offers(machine, kind)).collect();
        match self.reset_by_first(machine, &offered, None).await {
            Ok(()) => self.until_power(machine, Power::On, self.budgets.effect).await,
            // Off and on would have the same result.
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

    /// Resets in the first way that the BMC does not refuse. Where one of them conflicts with what
    /// the BMC still does, all of them again: some say 409 for a minute after a power-off
    /// (OpenStack ironic, 238c9e0cc), others refuse while the machine is in POST. `wanted` is the power state that
    /// makes the reset needless, if one does.
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
                // The button of a machine that got there by itself meanwhile would take it back.
                if *kind == BUTTON && Some(self.power_state(machine).await?) == wanted {
                    return Ok(());
                }
                match self.reset(machine, kind, wanted).await {
                    // No other way has another result, now or at all.
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

    /// An error with the cause that the state of the machine tells, where the BMC did not say it: not every BMC that
    /// refuses in POST names it.
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
            // 400 or 409 because the state is reached already.
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

/// Whether a system that has power says that its firmware is at work: `BootProgress.LastState` (ComputerSystem 1.13.0),
/// or iLO's `PostState`.
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

/// The resource that tells the machine's power.
fn power_path(machine: &Machine) -> &str {
    machine.power_path.as_deref().unwrap_or(&machine.system_path)
}

/// Whether a reset type may be asked for; a BMC that lists none takes the common ones.
fn offers(machine: &Machine, kind: &str) -> bool {
    machine.reset_types.is_empty() || lists(machine, kind)
}

/// Whether the BMC says that it takes a reset type.
fn lists(machine: &Machine, kind: &str) -> bool {
    machine.reset_types.iter().any(|offered| offered == kind)
}
