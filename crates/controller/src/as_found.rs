// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a job found at its machine before it changed anything, and what of it is put back at the job's end.
//!
//! ```text
//! first insert: read ─▶ recorded (store) ─▶ ... ─▶ media ejected ─▶ put back ─▶ machine started ─▶ put back: once
//! ```
//!
//! | at the end | power | boot override | mode of the override |
//! |---|---|---|---|
//! | the job succeeded | started | put back if it holds for every boot, is of UEFI mode and leads to no medium | UEFI |
//! | it failed, and may have written | started | put back | put back |
//! | it failed before its permit | as found | put back | put back |
//!
//! An override for one boot is put back after the start, and after a success also one that does not lead to the disk:
//! the start itself is from the machine's disk. Remote media that were disabled are disabled again once ours are ejected, however the job ended.

use std::time::Duration;

use job::Outcome;
use redfish::{Bmc, BootOverride, BootSettings, Machine, Power, Wanted};
use serde::{Deserialize, Serialize};

/// What a BMC does not offer that has remote media disabled and no action for it.
pub const CANNOT_ENABLE: &str = "virtual media, which are disabled in it, nor an action that enables them: enable \
    remote media in the BMC's own settings (AMI: Settings, Media Redirection, Remote Media Support)";

/// Looks at a machine whose power changes: a forced power-off takes some seconds.
const POWER_LOOKS: u32 = 10;
const POWER_LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a job found. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The machine had no power.
    pub is_off: bool,
    pub boot: BootSettings,
    /// The BMC had its virtual media switched off.
    #[serde(default)]
    pub is_media_off: bool,
}

impl Found {
    /// As the machine is now. `former`: what the last job of this machine found and could not put back.
    pub async fn read(
        bmc: &Bmc,
        machine: &Machine,
        former: Option<&Found>,
    ) -> Result<Found, redfish::Error> {
        let boot = bmc.boot_settings(machine).await?;
        let is_media_off = is_media_off(machine);
        let is_off = settled_power(bmc, machine).await? == Power::Off;
        let found = Found { is_off, boot, is_media_off };
        Ok(found.unless_left_by(former))
    }

    /// An override that a former job may have left is not what was there: that is in the former job's record.
    pub fn unless_left_by(self, former: Option<&Found>) -> Found {
        let is_like_ours = |one: &BootOverride| one.leads_to_medium() || one.has_url();
        match former {
            Some(former) if self.boot.any(is_like_ours) => {
                Found { boot: former.boot.clone(), ..self }
            }
            Some(_) | None => self,
        }
    }

    /// For the job's events.
    pub fn words(&self) -> String {
        let power = if self.is_off { "off" } else { "on" };
        let media = if self.is_media_off { "; remote media are disabled in its BMC" } else { "" };
        format!("the machine is {power}; {}{media}", self.boot)
    }
}

/// A job at its end, as far as what is put back depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// `None`: the job is of an older version, which recorded nothing.
    pub found: Option<&'a Found>,
    pub outcome: Option<&'a Outcome>,
    /// The machine had its permit: its disk may be different.
    pub is_permitted: bool,
    /// The job set an override of its own, or was about to.
    pub is_boot_touched: bool,
}

/// Something that could not be put back.
#[derive(Debug)]
pub struct Left {
    pub what: String,
    pub error: redfish::Error,
    /// Another try may help.
    pub may_pass: bool,
}

impl Left {
    pub fn new(what: impl Into<String>, error: redfish::Error) -> Left {
        Left { what: what.into(), may_pass: error.is_transient(), error }
    }

    /// A medium that was not ejected.
    pub fn in_slot(path: &str, error: redfish::Error) -> Left {
        Left::new(format!("a medium stays in {path}"), error)
    }
}

impl Ending<'_> {
    /// The machine was off and nothing was written: there is nothing to start it for.
    pub fn stays_off(&self) -> bool {
        !self.is_success() && !self.is_permitted && self.found.is_some_and(|found| found.is_off)
    }

    fn is_success(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Succeeded))
    }

    /// The overrides at the very end.
    pub fn boot(&self) -> Option<BootSettings> {
        let found = self.found?;
        let at_the_end = |one: &BootOverride| match self.is_success() {
            false => one.clone(),
            true if is_kept(one) => one.clone(),
            // The mode stays the one in which the new system was installed.
            true if one.is_set() => BootOverride { mode: None, ..one.cleared() },
            true => BootOverride { mode: None, ..one.clone() },
        };
        Some(found.boot.map(at_the_end))
    }

    /// The overrides when the machine is started, or when it stays off.
    pub fn boot_at_start(&self) -> Option<BootSettings> {
        let boot = self.boot()?;
        Some(match self.stays_off() {
            true => boot,
            false => boot.map(|one| if self.waits(one) { one.cleared() } else { one.clone() }),
        })
    }

    /// The overrides after the start, where one had to wait for it.
    pub fn boot_after_start(&self) -> Option<BootSettings> {
        self.boot().filter(|boot| !self.stays_off() && boot.any(|one| self.waits(one)))
    }

    /// The start would consume this override, or would not be the first one of a new system.
    fn waits(&self, one: &BootOverride) -> bool {
        let leads_elsewhere = one.is_set() && !one.target.eq_ignore_ascii_case("Hdd");
        one.is_once() || (self.is_success() && leads_elsewhere)
    }

    /// What is not put back after a success, for the job's events.
    fn not_put_back(&self) -> Option<String> {
        let found = self.found.filter(|_| self.is_success())?;
        let lost = |one: &BootOverride| (one.is_set() || one.is_legacy()) && !is_kept(one);
        let lost: Vec<String> =
            found.boot.each().filter(|one| lost(one)).map(ToString::to_string).collect();
        (!lost.is_empty()).then(|| {
            format!(
                "not put back, because the new system is started in UEFI mode: {}",
                lost.join("; ")
            )
        })
    }
}

/// Whether an override that was found lets an installed machine start its new system. One for a single boot
/// was for the boot that the job took.
fn is_kept(one: &BootOverride) -> bool {
    one.is_set() && !one.is_once() && !one.is_legacy() && !one.leads_to_medium()
}

/// The power of a machine, once it is not between on and off any more. One that tells neither counts as on.
async fn settled_power(bmc: &Bmc, machine: &Machine) -> Result<Power, redfish::Error> {
    let mut power = machine.power;
    for _ in 0..POWER_LOOKS {
        if power != Power::Changing {
            break;
        }
        tokio::time::sleep(POWER_LOOK_EVERY).await;
        power = bmc.power_state(machine).await?;
    }
    Ok(power)
}

/// Whether the machine's BMC says that its virtual media are switched off.
pub fn is_media_off(machine: &Machine) -> bool {
    machine.remote_media.as_ref().is_some_and(|media| !media.is_enabled)
}

/// Enables remote media that are disabled, and answers the machine as it is then.
pub async fn enable_media(
    bmc: &Bmc,
    machine: &Machine,
    wanted: Wanted<'_>,
) -> Result<Option<Machine>, redfish::Error> {
    match &machine.remote_media {
        Some(media) if !media.is_enabled && media.can_be_switched() => {
            bmc.enable_remote_media(machine, wanted).await.map(Some)
        }
        // Its firmware needs none.
        Some(media) if !media.is_enabled && !machine.has_http_boot => {
            Err(redfish::Error::Unsupported(CANNOT_ENABLE))
        }
        Some(_) | None => Ok(None),
    }
}

/// Disables remote media again, where they were when the job began.
pub async fn disable_media(
    bmc: &Bmc,
    machine: &Machine,
    ending: &Ending<'_>,
) -> Result<Option<String>, Left> {
    let was_off = ending.found.is_some_and(|found| found.is_media_off);
    if !was_off || is_media_off(machine) {
        return Ok(None);
    }
    match bmc.disable_remote_media(machine).await {
        Ok(()) => Ok(Some("remote media are disabled again".into())),
        Err(error) => Err(Left::new("remote media stay enabled in the BMC", error)),
    }
}

/// Takes the job's own override back and puts back what was there, as far as the start leaves it.
pub async fn put_back(bmc: &Bmc, machine: &Machine, ending: &Ending<'_>) -> Result<String, Left> {
    if !ending.is_boot_touched {
        return Ok("the boot override was not touched".into());
    }
    let Some(boot) = ending.boot_at_start() else {
        let cleared = bmc.clear_boot_override(machine).await;
        return cleared
            .map(|()| "boot override cleared".into())
            .map_err(|error| Left::new("the boot override may stay set", error));
    };
    let put = bmc.put_boot_back(machine, &boot).await;
    put.map_err(|error| Left::new(format!("not put back: {boot}"), error))?;
    let done = match boot.any(|one| one.is_set() || one.is_legacy()) {
        true => format!("put back: {boot}"),
        false => "boot override cleared".to_owned(),
    };
    let not = ending.not_put_back().map(|what| format!("; {what}"));
    Ok(format!("{done}{}", not.unwrap_or_default()))
}

/// Leaves the machine with the power that it is to have, and then puts back what its start would have consumed. Tells
/// what was done, and what was not.
pub async fn start(bmc: &Bmc, machine: &Machine, ending: &Ending<'_>) -> (Vec<String>, Vec<Left>) {
    let (mut done, mut left) = (Vec::new(), Vec::new());
    if ending.stays_off() {
        done.push(
            "the machine was off before the job, and nothing was written: it stays off".into(),
        );
        return (done, left);
    }
    match bmc.power_on(machine).await {
        Ok(()) => done.push("powered on; the machine starts from its disk".into()),
        Err(error) => left.push(Left::new("the machine is not started", error)),
    }
    if let Some(boot) = ending.boot_after_start() {
        match bmc.put_boot_back(machine, &boot).await {
            Ok(()) => done.push(format!("put back: {boot}")),
            // Some BMCs refuse a change while the firmware tests the machine, which passes.
            Err(error) => {
                let what = format!("not put back: {boot}");
                left.push(Left { may_pass: true, ..Left::new(what, error) });
            }
        }
    }
    (done, left)
}
