// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reads what a job finds at its machine, and puts it back at the job's end. What is put back, and when, is decided in
//! `crate::as_found`.

use std::time::Duration;

use redfish::{Bmc, BootSettings, Machine, Power, Wanted};

use crate::as_found::{Ending, Found};

/// What a BMC does not offer that has remote media disabled and no action for it.
pub const CANNOT_ENABLE: &str = "virtual media, which are disabled in it, nor an action that enables them: enable \
    remote media in the BMC's own settings (AMI: Settings, Media Redirection, Remote Media Support)";

/// Looks at a machine whose power changes: a forced power-off takes some seconds.
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

/// As the machine is now. `former`: what the last job of this machine found and could not put back.
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

/// Puts back what the machine's start would have consumed, once it is started.
pub async fn put_back_after_start(
    bmc: &Bmc,
    machine: &Machine,
    boot: &BootSettings,
) -> Result<String, Left> {
    match bmc.put_boot_back(machine, boot).await {
        Ok(()) => Ok(format!("put back: {boot}")),
        // Some BMCs refuse a change while the firmware tests the machine, which passes.
        Err(error) => {
            let what = format!("not put back: {boot}");
            Err(Left { may_pass: true, ..Left::new(what, error) })
        }
    }
}
