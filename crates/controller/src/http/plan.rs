// SPDX-License-Identifier: AGPL-3.0-or-later
//! `POST /jobs?mode=plan`: checks what a job would meet, without creating one. Every check is made, whatever the
//! results of the others: a plan that stops at the first problem would have to be requested again and again.

use api::jobs::{Check, CheckResult, Plan};
use api::servers::FetchResult;
use recipe::{Partition, Recipe, Size, Wipe, Workflow, layout};

use super::admission::{self, Admission, check};
use super::app::App;
use super::problem::Answer;
use crate::bmc::look::{self, Seen};
use crate::bmc::{Unavailable, identity};
use crate::failure::chain;
use crate::store::ServerRow;

/// The number of earlier jobs from which the expected duration is estimated.
const SAMPLES: usize = 21;

/// Plans a job. `may_eject`: the job would be permitted to eject foreign media.
pub async fn plan(app: &App, server: ServerRow, recipe: &Recipe, may_eject: bool) -> Answer<Plan> {
    let target = recipe.task_target.as_str();
    let Admission { mut checks, artifact_digest, is_updating, .. } =
        admission::look(app, &server, recipe).await?;
    if let Workflow::Linux(linux) = &recipe.workflow {
        checks.push(disk(&linux.wipe));
        checks.extend(esp(&linux.layout));
    }
    let serial = server.serial.clone();
    // An update uses the BMC exclusively, for as long as an hour.
    let seen = if is_updating {
        Err(Unavailable::Updating)
    } else {
        look::look(&app.bmcs, server, true).await
    };
    let media_plan = match seen {
        Ok(seen) => machine(app, &serial, &mut checks, &seen, may_eject),
        Err(blind) => {
            checks.push(check("bmc", CheckResult::Fail, chain(&blind)));
            None
        }
    };
    let took = app.store.durations(target.to_owned(), SAMPLES).await?;
    Ok(Plan {
        server_serial: serial,
        task_target: target.to_owned(),
        artifact_digest,
        media_plan,
        is_ready: checks.iter().all(|check| check.result != CheckResult::Fail),
        checks,
        expected_seconds: median(took),
    })
}

/// Warns of a small EFI system partition. Only the machine knows the disk's sector size; it refuses such a layout
/// before anything is written.
fn esp(layout: &[Partition]) -> Option<Check> {
    const LARGE_SECTOR_BYTES: u64 = 4096;
    let esp = layout::esp(layout)?;
    let Size::Bytes(bytes) = esp.size else { return None };
    let bytes_min = layout::fat32_bytes_min(LARGE_SECTOR_BYTES);
    (bytes < bytes_min).then(|| {
        let detail = format!(
            "the EFI system partition has {} MiB; on a disk with sectors of {LARGE_SECTOR_BYTES} bytes firmware needs \
             {} MiB, and the machine refuses the layout there; write 512M",
            bytes >> 20,
            bytes_min >> 20
        );
        check("layout", CheckResult::Warn, detail)
    })
}

/// Describes what the machine will check and write: its disk cannot be examined from here.
fn disk(wipe: &Wipe) -> Check {
    let consent = match wipe {
        Wipe::Never => "is written only if all of that can be read and is empty".to_owned(),
        Wipe::Any => {
            "is written if all of that can be read, and what is found belongs to this disk alone: the data on it \
             are destroyed"
                .to_owned()
        }
        Wipe::Expect(words) => format!(
            "is written if all of that can be read, and nothing is found but {}: these are destroyed",
            words.join(", ")
        ),
    };
    let detail = format!(
        "not looked at from here. The machine looks at both ends of the disk, at the partitions of every table and \
         of the kernel, at signatures and at samples of the bytes; the disk {consent}"
    );
    check("disk", CheckResult::Warn, detail)
}

/// Adds checks of what was found at the BMC, and returns the media plan.
fn machine(
    app: &App,
    serial: &str,
    checks: &mut Vec<Check>,
    seen: &Seen,
    may_eject: bool,
) -> Option<String> {
    let Seen { machine, occupants, fetch } = seen;
    let names = identity::names(&machine.told);
    let what = format!("{} {}, {names}", machine.manufacturer, machine.model);
    checks.push(check("bmc", CheckResult::Pass, what));
    let chosen = look::media_plan(&app.bmcs, serial, seen, may_eject);
    checks.push(match &chosen {
        Ok(Some((chosen, _))) => check("media-plan", CheckResult::Pass, chosen.words()),
        Ok(None) => check(
            "media-plan",
            CheckResult::Warn,
            "remote media are disabled in the BMC. A job enables them, and disables them again when its media are \
             ejected; which slots there are shows then",
        ),
        Err(why) => check("media-plan", CheckResult::Fail, why.as_str()),
    });
    let ejected = match &chosen {
        Ok(Some((_, ejected))) => Some(ejected.as_slice()),
        Ok(None) => Some(&[][..]),
        Err(_) => None,
    };
    checks.extend(foreign_media(&occupants.foreign(machine), ejected));
    if let Some(fetch) = fetch {
        let result = match fetch.result {
            FetchResult::Read => CheckResult::Pass,
            FetchResult::NotRead | FetchResult::Skipped => CheckResult::Warn,
            FetchResult::Refused => CheckResult::Fail,
        };
        let rate = fetch.kib_per_second.map(|rate| format!(", {rate} KiB/s")).unwrap_or_default();
        checks.push(check("fetch", result, format!("{}{rate}", fetch.detail)));
    }
    chosen.ok().flatten().map(|(chosen, _)| chosen.plan.name().to_owned())
}

/// Lists each foreign medium and what a job would do to it. `ejected`: the places from which the job would eject
/// media; `None`: no job could run.
fn foreign_media(foreign: &[(&str, &str)], ejected: Option<&[&str]>) -> Option<Check> {
    let fate = |place: &str| match ejected {
        Some(places) if places.contains(&place) => "the job ejects it, and does not put it back",
        Some(_) => "it stays there",
        None => "a job ends before it changes anything",
    };
    let told: Vec<String> = foreign
        .iter()
        .map(|(place, what)| {
            format!("{place} holds {what}, not of this controller: {}", fate(place))
        })
        .collect();
    (!told.is_empty()).then(|| check("foreign-media", CheckResult::Warn, told.join("; ")))
}

/// Returns the median, in whole seconds.
fn median(mut took_ms: Vec<i64>) -> Option<u64> {
    took_ms.sort_unstable();
    let middle = *took_ms.get(took_ms.len() / 2)?;
    u64::try_from(middle / 1000).ok()
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_of_what_was_is_expected() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9000, 1000, 5000]), Some(5));
    }
}
