// SPDX-License-Identifier: AGPL-3.0-or-later
//! The settings that a job finds at its machine before it changes any, and the rules for what is put back at its end.
//!
//! ```text
//! first insert: read ─▶ recorded (store) ─▶ ... ─▶ media ejected ─▶ put back ─▶ machine started ─▶ put back: once
//! ```
//!
//! | at the job's end | power | boot override | mode of the override |
//! |---|---|---|---|
//! | the job succeeded | started | put back if it holds for every boot, is of UEFI mode and leads to no medium | UEFI |
//! | it failed, and may have written | started | put back | put back |
//! | it failed before its permit | as found | put back | put back |
//!
//! An override for one boot is put back after the start. After a success this also holds for an override that does not
//! lead to the disk, because the start itself is from the machine's disk. Remote media that were disabled are disabled
//! again once ours are ejected, however the job ended.

use job::Outcome;
use redfish::{BootOverride, BootSettings};
use serde::{Deserialize, Serialize};

/// The settings that a job found at its machine. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The machine was off.
    pub is_off: bool,
    pub boot: BootSettings,
    /// The BMC had its virtual media switched off.
    #[serde(default)]
    pub is_media_off: bool,
}

impl Found {
    /// An override that an earlier job may have left is not what was there before. In that case the overrides come from
    /// the record of the earlier job.
    pub fn unless_left_by(self, former: Option<&Found>) -> Found {
        let is_like_ours = |one: &BootOverride| one.leads_to_medium() || one.has_url();
        match former {
            Some(former) if self.boot.any(is_like_ours) => {
                Found { boot: former.boot.clone(), ..self }
            }
            Some(_) | None => self,
        }
    }

    /// A description for the job's events.
    pub fn words(&self) -> String {
        let power = if self.is_off { "off" } else { "on" };
        let media = if self.is_media_off { "; remote media are disabled in its BMC" } else { "" };
        format!("the machine is {power}; {}{media}", self.boot)
    }
}

/// The facts about a job at its end that decide what is put back.
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

impl Ending<'_> {
    /// The machine was off and nothing was written: there is no reason to start it.
    pub fn stays_off(&self) -> bool {
        !self.is_success() && !self.is_permitted && self.found.is_some_and(|found| found.is_off)
    }

    fn is_success(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Succeeded))
    }

    /// The overrides that are to be set when the job is over.
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

    /// The overrides that are set before the machine is started, or while it stays off.
    pub fn boot_at_start(&self) -> Option<BootSettings> {
        let boot = self.boot()?;
        Some(match self.stays_off() {
            true => boot,
            false => boot.map(|one| if self.waits(one) { one.cleared() } else { one.clone() }),
        })
    }

    /// The overrides that are set after the start, if one had to wait for it.
    pub fn boot_after_start(&self) -> Option<BootSettings> {
        self.boot().filter(|boot| !self.stays_off() && boot.any(|one| self.waits(one)))
    }

    /// Whether this override has to wait: the start would consume it, or would not boot the new system.
    fn waits(&self, one: &BootOverride) -> bool {
        let leads_elsewhere = one.is_set() && !one.target.eq_ignore_ascii_case("Hdd");
        one.is_once() || (self.is_success() && leads_elsewhere)
    }

    /// Says what is not put back after a success, for the job's events.
    pub fn not_put_back(&self) -> Option<String> {
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

/// Whether an override that was found lets an installed machine start its new system. An override for one boot was
/// meant for the boot that the job used.
fn is_kept(one: &BootOverride) -> bool {
    one.is_set() && !one.is_once() && !one.is_legacy() && !one.leads_to_medium()
}
