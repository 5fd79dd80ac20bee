// SPDX-License-Identifier: AGPL-3.0-or-later
//! A look at a server before a job: whether its BMC can be reached, which media plan fits, and whether the BMC can read
//! a medium from this controller. Nothing boots, and the inserted medium is ejected again.

use std::time::Duration;

use api::servers::{Fetch, FetchResult};
use redfish::{Bmc, Machine, Slot};

use crate::bmc::put_back::{CANNOT_ENABLE, is_media_off};
use crate::bmc::{Bmcs, in_places};
use crate::bmc::{Purpose, Session, Unavailable};
use crate::failure::chain;
use crate::keys::sha256;
use crate::media::occupants::{Occupant, Occupants};
use crate::media::plan::{self, Chosen, Circumstances, MediaPlan, NotChosen, OCCUPIED_CURE};
use crate::store::{PROBE_NAME, ServerRow};
use crate::time::now_ms;

/// Longest wait for the response to the insert of a medium of 1 MiB.
const INSERT_MAX: Duration = Duration::from_secs(90);
/// Longest wait for the first read after the insert. Most BMCs read at once.
const READ_MAX: Duration = Duration::from_secs(10);

/// The result of a look.
pub struct Seen {
    pub machine: Machine,
    /// The content of its media slots.
    pub occupants: Occupants,
    /// `None` if the caller asked for no insert.
    pub fetch: Option<Fetch>,
}

/// The media plan that a job would use, with the places that it would empty of foreign media; or the reason why there
/// is none. `None`: remote media are disabled, and the slots are known only after a job has enabled them.
pub fn media_plan<'a>(
    bmcs: &Bmcs,
    server: &str,
    seen: &'a Seen,
    may_eject: bool,
) -> Result<Option<(Chosen<'a>, Vec<&'a str>)>, String> {
    if is_media_off(&seen.machine) {
        let can_be_switched = |media: &redfish::RemoteMedia| media.can_be_switched();
        if seen.machine.remote_media.as_ref().is_some_and(can_be_switched) {
            return Ok(None);
        }
        if !seen.machine.has_http_boot {
            return Err(chain(&redfish::Error::Unsupported(CANNOT_ENABLE)));
        }
    }

    let refused = bmcs.refused_slots.of(server);
    let circumstances = Circumstances {
        refused: &refused,
        occupants: &seen.occupants,
        may_eject,
        has_room: bmcs.media.reserved().is_ok(),
    };
    let (chosen, _) = plan::choose_again(&seen.machine, circumstances);
    let (chosen, in_the_way) = chosen.map_err(|why| match why {
        NotChosen::NoPlace(error) => chain(&error),
        NotChosen::Occupied(what) => format!("{what}, {OCCUPIED_CURE}"),
    })?;
    if chosen.plan.is_combined() {
        bmcs.media.reserved().map_err(|error| format!("{error:#}"))?;
    }
    Ok(Some((chosen, in_the_way)))
}

/// Looks at a server. Runs to its end even if the caller is dropped.
pub async fn look(bmcs: &Bmcs, server: ServerRow, is_inserting: bool) -> Result<Seen, Unavailable> {
    let bmcs = bmcs.clone();
    let task = tokio::spawn(async move { look_now(&bmcs, &server, is_inserting).await });
    task.await.map_err(anyhow::Error::from)?
}

async fn look_now(
    bmcs: &Bmcs,
    server: &ServerRow,
    is_inserting: bool,
) -> Result<Seen, Unavailable> {
    let _turn = bmcs.locks.enter(&server.bmc_url).await;
    let session = Session::open(bmcs, server, Purpose::Look).await?;
    let bmc = session.bmc();
    let seen = async {
        let machine = session.machine(bmcs, server).await?;
        let uri = match machine.has_http_boot {
            true => bmc.http_boot_uri(&machine).await?,
            false => None,
        };
        let (serial, slots) = (&server.serial, &machine.slots);
        let occupants = in_places(bmcs, serial, None, slots, uri.as_deref()).await?;
        if !is_inserting {
            return Ok(Seen { machine, occupants, fetch: None });
        }
        // Checked while the lock is held: a job that starts now waits for the lock.
        let fetch = match bmcs.store.server(&server.serial).await?.active_job {
            Some(job) => skipped(format!("job {job} uses the virtual media")),
            None if is_media_off(&machine) => skipped(
                "remote media are disabled in the BMC; a job enables them for its time where that can be done".into(),
            ),
            None => {
                let refused = bmcs.refused_slots.of(serial);
                match free_slot(&machine, &occupants, &refused) {
                    Some(slot) => fetch(bmcs, serial, bmc, slot).await?,
                    None => skipped(no_slot(&machine).into()),
                }
            }
        };
        Ok(Seen { machine, occupants, fetch: Some(fetch) })
    };
    let seen = seen.await;
    session.close().await;
    seen
}

/// An empty slot. A slot that refused a medium earlier is returned only if there is no other.
fn free_slot<'a>(
    machine: &'a Machine,
    occupants: &Occupants,
    refused: &[String],
) -> Option<&'a Slot> {
    // Where slots share one connection, the probe would eject the medium in another slot.
    if machine.slots_share_one_medium() && machine.slots.iter().any(Slot::is_occupied) {
        return None;
    }
    let is_free = |slot: &&Slot| slot.takes_cd() && *occupants.of(&slot.path) == Occupant::Nothing;
    let free = machine.slots.iter().filter(is_free);
    free.min_by_key(|slot| refused.contains(&slot.path))
}

/// Why there is no slot for the insert.
fn no_slot(machine: &Machine) -> &'static str {
    match plan::choose(machine, &[]) {
        Ok(Chosen { plan: MediaPlan::Http, .. }) => {
            "not the BMC reads, but the machine's firmware when it boots (UEFI HTTP boot)"
        }
        Ok(_) => "every CD slot is occupied",
        Err(_) => "there is no CD slot to insert into",
    }
}

fn skipped(why: String) -> Fetch {
    Fetch { result: FetchResult::Skipped, detail: why, slot: None, bytes: 0, kib_per_second: None }
}

/// Inserts a small medium, waits for its first read, and ejects it.
async fn fetch(bmcs: &Bmcs, serial: &str, bmc: &Bmc, slot: &Slot) -> Result<Fetch, Unavailable> {
    let token = bmcs.keys.media_token()?;
    let token_hash = sha256(token.as_bytes());
    // Stored first, so that a medium that stays in the slot is known as ours, however this process ends.
    bmcs.store.issue_probe(serial, token_hash.clone(), &slot.path, now_ms()).await?;
    let probe = bmcs.probes.open(&token)?;
    let mut url = bmcs.settings.media_url.clone();
    url.set_path(&format!("/m/{token}/{PROBE_NAME}"));
    let inserted = tokio::time::timeout(INSERT_MAX, bmc.insert(slot, &url)).await;
    let is_read = match inserted {
        Ok(Ok(())) => probe.wait_for_read(READ_MAX).await,
        _ => probe.wait_for_read(Duration::ZERO).await,
    };
    let ejected = bmc.eject_own(slot, &url).await;
    // An insert without a response may be carried out after the eject.
    if ejected.is_ok() && inserted.is_ok() {
        bmcs.store.end_probe(token_hash).await?;
    }
    let from = &bmcs.settings.media_url;
    let read = format!("{} bytes were read from {from}", probe.bytes());
    let (result, detail) = match (inserted, is_read) {
        (Ok(Ok(())), true) => (FetchResult::Read, read),
        (Ok(Ok(())), false) if probe.is_asked_for() => (
            FetchResult::NotRead,
            format!(
                "the BMC took the medium and asked {from} how long it is, but read nothing: it may read when a \
                 machine boots"
            ),
        ),
        (Ok(Ok(())), false) => (
            FetchResult::NotRead,
            format!(
                "the BMC took the medium without reading from {from}: it may read when a machine \
                 boots, or cannot reach that address"
            ),
        ),
        (Ok(Err(error)), is_read) => {
            let error = chain(&error);
            let seen = match (is_read, probe.is_asked_for()) {
                (true, _) => read,
                (false, true) => format!("{from} was only asked how long the medium is"),
                (false, false) => format!("nobody connected to {from}"),
            };
            (FetchResult::Refused, format!("the BMC did not insert the medium: {error}; {seen}"))
        }
        (Err(_), _) => {
            let secs = INSERT_MAX.as_secs();
            (FetchResult::Refused, format!("the BMC did not answer the insert within {secs} s"))
        }
    };
    // A medium that cannot be ejected counts as a refusal: a job's clean-up would fail in the same way.
    let (result, detail) = match ejected {
        Ok(()) => (result, detail),
        Err(error) => (
            FetchResult::Refused,
            format!(
                "{detail}; {PROBE_NAME} stays in {}: {}; eject it by hand",
                slot.path,
                chain(&error)
            ),
        ),
    };
    Ok(Fetch {
        result,
        detail,
        slot: Some(slot.path.clone()),
        bytes: probe.bytes(),
        kib_per_second: probe.rate(),
    })
}
