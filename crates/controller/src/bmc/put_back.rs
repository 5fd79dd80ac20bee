// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads a machine's settings before a job changes them, and puts them back at the job's end. `crate::as_found` decides
//! what is put back, and when.

use std::time::Duration;

use redfish::{Bmc, BootSettings, Machine, Power, Wanted};

use crate::as_found::{Ending, Found};

/// What is missing at a BMC that has remote media disabled and offers no action to enable them.
pub const CANNOT_ENABLE: &str = "virtual media, which are disabled in it, nor an action that enables them: enable \
    remote media in the BMC's own settings (AMI: Settings, Media Redirection, Remote Media Support)";

/// Looks at a machine whose power state is changing: a forced power-off takes some seconds.
const POWER_LOOKS: u32 = 10;
const POWER_LOOK_EVERY: Duration = Duration::from_secs(1);

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

/// The machine's settings as they are now. `former`: what the last job of this machine found and could not put back.
pub async fn read_found(
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

/// The power state of a machine once it is no longer changing. A state that is neither on nor off counts as on.
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

/// Whether the machine's BMC reports its virtual media as disabled.
pub fn is_media_off(machine: &Machine) -> bool {
    machine.remote_media.as_ref().is_some_and(|media| !media.is_enabled)
}

/// Enables remote media that are disabled, and returns the machine as it is afterwards.
pub async fn enable_media(
    bmc: &Bmc,
    machine: &Machine,
    wanted: Wanted<'_>,
) -> Result<Option<Machine>, redfish::Error> {
    match &machine.remote_media {
        Some(media) if !media.is_enabled && media.can_be_switched() => {
            bmc.enable_remote_media(machine, wanted).await.map(Some)
        }
        // With UEFI HTTP boot the firmware needs no virtual media.
        Some(media) if !media.is_enabled && !machine.has_http_boot => {
            Err(redfish::Error::Unsupported(CANNOT_ENABLE))
        }
        Some(_) | None => Ok(None),
    }
}

/// Disables remote media again if they were disabled when the job began.
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

/// Removes the job's own override and puts back what was there before, except overrides that the start would consume.
pub async fn put_back(bmc: &Bmc, machine: &Machine, ending: &Ending<'_>) -> Result<String, Left> {
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

/// Puts back the overrides that the start would have consumed. Called after the machine was started.
pub async fn put_back_after_start(
    bmc: &Bmc,
    machine: &Machine,
    boot: &BootSettings,
) -> Result<String, Left> {
    match bmc.put_boot_back(machine, boot).await {
        Ok(()) => Ok(format!("put back: {boot}")),
        // Some BMCs refuse a change during the firmware's self-test (POST), so another try may help.
        Err(error) => {
            let what = format!("not put back: {boot}");
            Err(Left { may_pass: true, ..Left::new(what, error) })
        }
    }
}
