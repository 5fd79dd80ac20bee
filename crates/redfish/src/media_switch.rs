// SPDX-License-Identifier: AGPL-3.0-or-later
//! Enables and disables a BMC's remote media. Each may be repeated.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::remote_media::is_enabled;
use crate::{Bmc, Error, Machine, Slot, Wanted};

/// The state to switch to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Enabled,
    Disabled,
}

impl Bmc {
    /// Enables remote media and waits for a slot that accepts a CD. Returns the machine as read at the end of the
    /// wait, with the slots that it has by then.
    pub async fn enable_remote_media(
        &self,
        machine: &Machine,
        wanted: Wanted<'_>,
    ) -> Result<Machine, Error> {
        self.switch_remote_media(machine, State::Enabled).await?;
        let deadline = Instant::now() + self.budgets.effect;
        loop {
            let machine = self.machine(Some(wanted)).await?;
            if machine.slots.iter().any(Slot::takes_cd) || Instant::now() > deadline {
                return Ok(machine);
            }
            tokio::time::sleep(self.budgets.conflict).await;
        }
    }

    /// Disables remote media, even if a medium is inserted.
    pub async fn disable_remote_media(&self, machine: &Machine) -> Result<(), Error> {
        self.switch_remote_media(machine, State::Disabled).await
    }

    async fn switch_remote_media(&self, machine: &Machine, state: State) -> Result<(), Error> {
        const NEEDED: &str = "an action that switches remote media";
        let switch = machine.remote_media.as_ref().and_then(|media| media.switch.as_deref());
        let switch = switch.ok_or(Error::Unsupported(NEEDED))?;
        let manager = machine.manager_path.as_deref().ok_or(Error::Unsupported(NEEDED))?;
        let is_so = |manager: &Value| is_enabled(manager) == Some(state == State::Enabled);
        if is_so(&self.get(manager).await?.body) {
            return Ok(());
        }
        let (what, state) = match state {
            State::Enabled => ("enable remote media", "Enable"),
            State::Disabled => ("disable remote media", "Disable"),
        };
        let answer = self.post(switch, &json!({"RMediaState": state})).await?;
        self.follow(answer).await?;
        self.until(what, self.budgets.effect, manager, is_so).await
    }
}
