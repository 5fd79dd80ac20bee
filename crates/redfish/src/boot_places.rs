// SPDX-License-Identifier: AGPL-3.0-or-later
//! The places of the boot settings: the system itself, and the resource of its future settings (DSP0266, 12.8, such
//! as AMI's `/SD`). A BMC may refuse a change in one of them, or accept it there without effect:
//!
//! ```text
//! first place ── refused ─────────────────▶ other place ── refused ──▶ error
//!      └─ accepted, no effect for a while ──▶ other place ── accepted: both are read until one shows it
//! ```

use serde_json::Value;
use tokio::time::Instant;

use crate::profile::Quirk;
use crate::{Bmc, Error, Machine, links};

/// After this fraction of the time for an effect, the other place is tried: 15 s of 120 s. The first place is still
/// read after that, so a BMC that shows changes late only gets the same change twice.
const OTHER_PLACE_AFTER: u32 = 8;

/// A change of the boot settings.
pub(crate) struct Change<'a, F> {
    /// Description for error messages.
    pub what: &'a str,
    /// PATCH bodies to try, the best first.
    pub forms: &'a [Value],
    /// Whether a resource shows the effect, given the index of the accepted form.
    pub is_so: F,
    /// The resource that must show the effect. `None`: any place that accepted the change.
    pub shown_at: Option<&'a str>,
}

impl Machine {
    /// The places of the boot settings, the best first. The place of an earlier successful change decides first, then
    /// the maker, then which place lists the target.
    pub(crate) fn boot_places(&self, target: Option<&str>) -> Vec<&str> {
        let now = self.system_path.as_str();
        let Some(future) = self.settings_path.as_deref() else { return vec![now] };
        let lists = |targets: &[String]| {
            target.is_some_and(|target| targets.iter().any(|listed| listed == target))
        };
        let is_future_first = match self.boot_place.as_deref() {
            Some(known) if links::is_same(known, future) => true,
            Some(known) if links::is_same(known, now) => false,
            _ => {
                self.profile.has(Quirk::BootInSettings)
                    || (lists(&self.settings_targets) && !lists(&self.boot_targets))
            }
        };
        if is_future_first { vec![future, now] } else { vec![now, future] }
    }

    /// Whether the BMC lists this target, in either place.
    pub(crate) fn lists_target(&self, target: &str) -> bool {
        self.boot_targets.iter().chain(&self.settings_targets).any(|listed| listed == target)
    }
}

impl Bmc {
    /// Makes a change in the first place that accepts it and shows its effect. Returns that place.
    pub(crate) async fn change_boot<'a, F>(
        &self,
        places: &[&'a str],
        change: &Change<'_, F>,
    ) -> Result<&'a str, Error>
    where
        F: Fn(&Value, usize) -> bool,
    {
        let mut accepted: Vec<(&str, usize)> = Vec::new();
        let mut refusal = Error::Unsupported("a boot override");
        for (nth, path) in places.iter().enumerate() {
            match self.patch_first(path, change.forms).await {
                Ok(form) => accepted.push((path, form)),
                Err(error) if is_of_place(&error) => refusal = error,
                Err(error) => return Err(error),
            }
            if accepted.is_empty() {
                continue;
            }
            let is_last = nth + 1 == places.len();
            match self.until_shown(&accepted, is_last, change).await {
                Err(Error::NotEffective { .. }) if !is_last => {}
                result => return result,
            }
        }
        Err(refusal)
    }

    /// Sends the forms in order until one is accepted. Returns its index.
    pub(crate) async fn patch_first(&self, path: &str, forms: &[Value]) -> Result<usize, Error> {
        let mut last = Error::Unsupported("a boot override");
        for (form, body) in forms.iter().enumerate() {
            match self.patch(path, body).await {
                Ok(answer) => {
                    self.follow(answer).await?;
                    return Ok(form);
                }
                Err(error) if error.is_of_bmc() => return Err(error),
                Err(error @ Error::Status { status: 400..=499, .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Reads the places that accepted a change until one of them shows it.
    async fn until_shown<'a, F>(
        &self,
        accepted: &[(&'a str, usize)],
        is_last: bool,
        change: &Change<'_, F>,
    ) -> Result<&'a str, Error>
    where
        F: Fn(&Value, usize) -> bool,
    {
        let whole = self.budgets.effect;
        let budget = if is_last { whole } else { whole / OTHER_PLACE_AFTER };
        let deadline = Instant::now() + budget;
        loop {
            for (path, form) in accepted {
                let read = change.shown_at.unwrap_or(path);
                if (change.is_so)(&self.get(read).await?.body, *form) {
                    self.settled();
                    return Ok(path);
                }
            }
            if Instant::now() > deadline {
                let places: Vec<&str> = accepted.iter().map(|(path, _)| *path).collect();
                let what = format!("{} at {}", change.what, places.join(" and "));
                return Err(Error::NotEffective { what: self.foreign(&what), budget });
            }
            tokio::time::sleep(self.budgets.poll).await;
        }
    }
}

/// Whether the error concerns this resource only, so that another one may accept the change.
fn is_of_place(error: &Error) -> bool {
    matches!(error, Error::Status { status: 400..=499 | 501, .. } | Error::Unsupported(_))
        && !error.is_of_bmc()
}
