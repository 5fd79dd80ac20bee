// SPDX-License-Identifier: AGPL-3.0-or-later
//! Boots the maintenance OS. After a crash it is not known whether the reset was sent; it is not repeated while the
//! machine shows that it boots.

use std::time::Duration;

use tokio::time::Instant;

use crate::bmc::Visit;
use crate::failure::{Done, Failed};
use crate::jobs::actions::insert::our_http_boot_uri;
use crate::jobs::actions::verbs::is_by_http;
use crate::jobs::parts::Jobs;
use crate::store::JobRow;

/// How often the controller looks for a sign that the machine boots.
const EVIDENCE_POLL: Duration = Duration::from_millis(500);
/// Reads of at least this size mean a boot. A BMC that only inspects a medium reads some sectors; a boot reads a
/// bootloader and a kernel.
const EVIDENCE_BYTES_MIN: u64 = 64 << 10;

/// Sets the boot override for one boot: to the CD, or to the URL that the firmware downloads.
pub async fn set_boot_once(jobs: &Jobs, visit: &Visit, job: &JobRow) -> Done {
    let (bmc, machine) = (visit.bmc(), &visit.machine);
    let is_by_http = is_by_http(job);
    let set = match is_by_http {
        true => match our_http_boot_uri(jobs, visit).await? {
            Some(uri) => bmc.set_boot_once_http(machine, &uri).await.map(Some),
            // The next verb, `ReplaceLostMedia`, finds that the medium is lost and inserts it again.
            None => Ok(None),
        },
        false => bmc.set_boot_once_cd(machine).await.map(Some),
    };
    let place = set.map_err(|error| Failed::by_bmc("redfish.boot-override", &error))?;
    if let Some(place) = &place {
        jobs.bmcs.boot_places.set(&job.server_serial, place);
    }
    let from = if is_by_http { "by UEFI HTTP" } else { "from CD" };
    let at = place.map(|place| format!(" at {place}")).unwrap_or_default();
    Ok(format!("boot once {from} is set{at}"))
}

/// Switches the machine on. Its boot is watched from now on.
pub async fn power_on(jobs: &Jobs, visit: &Visit, job: &JobRow) -> Done {
    jobs.media.begin_boot(&job.id, Instant::now());
    let on = visit.bmc().power_on(&visit.machine).await;
    on.map_err(|error| Failed::by_bmc("redfish.reset", &error))?;
    Ok("the machine is on".to_owned())
}

/// After a crash between the reset and its record: waits for a sign that the machine boots our media, and returns a
/// description of it. Each read restarts the wait, because a slow machine reads slowly.
pub async fn await_sign(jobs: &Jobs, job_id: &str) -> Option<String> {
    let bytes_read = || jobs.media.reads(job_id).maintenance_bytes;
    let (before, mut last) = (bytes_read(), bytes_read());
    let mut silent_since = Instant::now();
    while silent_since.elapsed() < jobs.settings.boot_silence_max {
        if jobs.store.job(job_id).await.is_ok_and(|job| job.hello_at.is_some()) {
            return Some("the machine had been reset before: it said hello".into());
        }
        let now = bytes_read();
        if now - before >= EVIDENCE_BYTES_MIN {
            return Some("the machine had been reset before: it reads the maintenance OS".into());
        }
        if now != last {
            (last, silent_since) = (now, Instant::now());
        }
        tokio::time::sleep(EVIDENCE_POLL).await;
    }
    None
}
