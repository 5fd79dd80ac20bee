// SPDX-License-Identifier: AGPL-3.0-or-later
//! One firmware update, from the first request to the BMC until the new version is read back. Each step is recorded
//! before it begins, so that the record shows how far an interrupted update came.

use std::sync::Arc;

use api::servers::{Firmware, FirmwareUpdate, UpdateState, UpdateStep, UpdateWay};
use jiff::Timestamp;
use redfish::{Accepted, Bmc, Error, Image};

use super::image::{ImageFile, Offered};
use super::records::{Claim, Updates};
use crate::bmc::{Bmcs, Purpose, Unavailable, Visit};
use crate::failure::chain;

/// Why an update did not succeed, in words.
enum Ended {
    Failed(String),
    /// The BMC may have the image.
    Unknown(String),
}

/// Runs an update and records its result. No client waits for it.
pub async fn run(
    bmcs: Bmcs,
    updates: Arc<Updates>,
    claim: Claim,
    mut update: FirmwareUpdate,
    image: ImageFile,
) {
    let ended = install(&bmcs, &updates, &mut update, &image).await;
    (update.state, update.reason) = match ended {
        Ok(()) => (UpdateState::Succeeded, None),
        Err(Ended::Failed(why)) => (UpdateState::Failed, Some(why)),
        Err(Ended::Unknown(why)) => (UpdateState::Unknown, Some(why)),
    };
    update.ended_at = Some(Timestamp::now());
    let FirmwareUpdate { server_serial, state, step, reason, .. } = &update;
    tracing::info!(server_serial, ?state, ?step, reason, "firmware update ended");
    if let Err(error) = updates.record(&update) {
        tracing::error!(error = format!("{error:#}"), "cannot record how a firmware update ended");
    }
    drop(image);
    drop(claim);
}

async fn install(
    bmcs: &Bmcs,
    updates: &Updates,
    update: &mut FirmwareUpdate,
    image: &ImageFile,
) -> Result<(), Ended> {
    let serial = update.server_serial.clone();
    let visit = Visit::of_server(bmcs, &serial, Purpose::Look).await.map_err(closed)?;
    let result = install_now(bmcs, updates, visit.bmc(), update, image).await;
    visit.session.close().await;
    result
}

async fn install_now(
    bmcs: &Bmcs,
    updates: &Updates,
    bmc: &Bmc,
    update: &mut FirmwareUpdate,
    image: &ImageFile,
) -> Result<(), Ended> {
    // Checked while holding the BMC's lock: a job that was created since then waits for the lock.
    let server = bmcs.store.server(&update.server_serial).await;
    if let Some(job) = server.map_err(|error| closed(error.into()))?.active_job {
        return Err(closed(Unavailable::Busy(job)));
    }
    update.before = shown(bmc.firmware().await.map_err(failed)?);
    let targets = targets(&update.targets, &update.before).map_err(Ended::Failed)?;
    let (accepted, offered) = transfer(bmcs, updates, bmc, update, image, &targets).await?;
    record(updates, update, UpdateStep::Task)?;
    bmc.finish_update(accepted).await.map_err(|error| {
        let why = format!("{}{}", chain(&error), fetched(offered.as_deref()));
        match error {
            Error::TaskFailed { .. } => Ended::Failed(why),
            _ => Ended::Unknown(why),
        }
    })?;
    record(updates, update, UpdateStep::Version)?;
    read_back(bmc, update, &targets).await
}

/// Transfers the image to the BMC. A BMC may fetch it as long as the returned offer exists.
async fn transfer(
    bmcs: &Bmcs,
    updates: &Updates,
    bmc: &Bmc,
    update: &mut FirmwareUpdate,
    image: &ImageFile,
    targets: &[String],
) -> Result<(Accepted, Option<Arc<Offered>>), Ended> {
    update.way = Some(UpdateWay::Push);
    record(updates, update, UpdateStep::Transfer)?;
    let file = Image { path: &image.path, file_name: &image.file_name };
    // Push where possible: it needs no connection from the BMC to this controller.
    match bmc.push_update(file, targets).await {
        Err(Error::Unsupported(_)) => {}
        pushed => return Ok((pushed.map_err(not_taken)?, None)),
    }
    update.way = Some(UpdateWay::Pull);
    record(updates, update, UpdateStep::Transfer)?;
    let token = bmcs.keys.media_token().map_err(|error| Ended::Failed(error.to_string()))?;
    let offered = updates.offer(&token, image);
    let mut url = bmcs.settings.media_url.clone();
    url.set_path(&format!("/m/{token}/{}", image.file_name));
    let accepted = bmc.update_from(&url, targets).await.map_err(not_taken)?;
    Ok((accepted, Some(offered)))
}

/// Reads the inventory until it shows the update.
async fn read_back(
    bmc: &Bmc,
    update: &mut FirmwareUpdate,
    targets: &[String],
) -> Result<(), Ended> {
    let (before, wanted) = (update.before.clone(), update.version.clone());
    let is_done =
        |items: &[redfish::Firmware]| is_installed(&before, items, targets, wanted.as_deref());
    match bmc.firmware_when(is_done).await {
        Ok(items) => {
            update.after = shown(items);
            Ok(())
        }
        Err(Error::NotEffective { .. }) => {
            // Only for display: it has been evaluated before.
            update.after = bmc.firmware().await.map(shown).unwrap_or_default();
            Err(Ended::Failed(match &wanted {
                Some(version) => format!(
                    "the BMC's task ended well, but its inventory does not show version {version}"
                ),
                None => "the BMC's task ended well, but no version has changed: the image may be \
                         what was installed before, or wait for a restart of the machine"
                    .into(),
            }))
        }
        Err(error) => Err(Ended::Unknown(chain(&error))),
    }
}

fn record(updates: &Updates, update: &mut FirmwareUpdate, step: UpdateStep) -> Result<(), Ended> {
    let is_sent = step != UpdateStep::Transfer;
    update.step = step;
    updates.record(update).map_err(|error| {
        let why = format!("cannot record the update: {error:#}");
        if is_sent { Ended::Unknown(why) } else { Ended::Failed(why) }
    })
}

/// Returns the BMC's paths for the targets that a user named.
fn targets(wanted: &[String], inventory: &[Firmware]) -> Result<Vec<String>, String> {
    let path = |wanted: &String| {
        if wanted.starts_with('/') {
            return Ok(wanted.clone());
        }
        let mut found = inventory.iter().filter(|item| item.name == *wanted);
        match (found.next(), found.next()) {
            (Some(item), None) => Ok(item.path.clone()),
            (Some(_), Some(_)) => Err(format!(
                "the BMC has several items called {wanted:?}; give the path of one as the target"
            )),
            (None, _) => {
                let names: Vec<&str> = inventory.iter().map(|item| item.name.as_str()).collect();
                Err(format!("the BMC has no item {wanted:?}; it has: {}", names.join(", ")))
            }
        }
    };
    wanted.iter().map(path).collect()
}

/// Whether the inventory shows the update. If it lists none of the targets, they cannot be checked: then all items
/// count.
fn is_installed(
    before: &[Firmware],
    now: &[redfish::Firmware],
    targets: &[String],
    wanted: Option<&str>,
) -> bool {
    let is_target = |item: &&redfish::Firmware| {
        targets.iter().any(|target| redfish::is_same_link(target, &item.path))
    };
    let is_any_listed = now.iter().any(|item| is_target(&item));
    // A BMC that restarts may list an item without its version.
    let mut listed = now
        .iter()
        .filter(|item| !is_any_listed || is_target(item))
        .filter(|item| !item.version.is_empty());
    let is_new = |item: &redfish::Firmware| {
        let is_same = |old: &api::servers::Firmware| {
            redfish::is_same_link(&old.path, &item.path) && old.version == item.version
        };
        !before.iter().any(is_same)
    };
    match wanted {
        Some(version) if is_any_listed => {
            listed.clone().next().is_some() && listed.all(|item| item.version == version)
        }
        Some(version) => listed.any(|item| item.version == version),
        None => listed.any(is_new),
    }
}

/// How much of an image the BMC fetched: a BMC that cannot reach this controller reports little about it.
fn fetched(offered: Option<&Offered>) -> String {
    match offered {
        Some(offered) if offered.read() == 0 => "; the BMC fetched nothing of the image".into(),
        Some(offered) => {
            format!("; {} bytes of the image's {} were fetched", offered.read(), offered.bytes)
        }
        None => String::new(),
    }
}

/// The inventory in the API's form.
pub fn shown(items: Vec<redfish::Firmware>) -> Vec<Firmware> {
    let shown = |item: redfish::Firmware| Firmware {
        name: item.name,
        version: item.version,
        path: item.path,
    };
    items.into_iter().map(shown).collect()
}

fn closed(closed: Unavailable) -> Ended {
    Ended::Failed(chain(&closed))
}

fn failed(error: Error) -> Ended {
    Ended::Failed(chain(&error))
}

/// The image did not reach the BMC, or the BMC's response did not arrive.
fn not_taken(error: Error) -> Ended {
    match &error {
        // 502 and 504 come from a proxy inside the BMC, which does not know the result either.
        Error::Unreachable { .. }
        | Error::BadAnswer { .. }
        | Error::Status { status: 502 | 504, .. } => Ended::Unknown(chain(&error)),
        _ => Ended::Failed(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(list: &[(&str, &str)]) -> Vec<redfish::Firmware> {
        let item = |(name, version): &(&str, &str)| redfish::Firmware {
            path: format!("/f/{name}"),
            name: (*name).into(),
            version: (*version).into(),
        };
        list.iter().map(item).collect()
    }

    #[test]
    fn an_update_is_done_when_the_inventory_shows_it() {
        let old = [("BMC", "1"), ("BIOS", "5")];
        for (now, targets, wanted, expected) in [
            ([("BMC", "1"), ("BIOS", "5")], &[][..], None, false),
            ([("BMC", "2"), ("BIOS", "5")], &[][..], None, true),
            ([("BMC", ""), ("BIOS", "5")], &[][..], None, false),
            ([("BMC", "2"), ("BIOS", "5")], &["/f/BIOS"][..], None, false),
            ([("BMC", "2"), ("BIOS", "5")], &["/elsewhere"][..], None, true),
            ([("BMC", "2"), ("BIOS", "5")], &["/f/BMC"][..], Some("3"), false),
            ([("BMC", "3"), ("BIOS", "5")], &["/f/BMC"][..], Some("3"), true),
            ([("BMC", "3"), ("BIOS", "5")], &["/f/BMC", "/f/BIOS"][..], Some("3"), false),
            ([("BMC", "1"), ("BIOS", "5")], &[][..], Some("5"), true),
            ([("BMC", ""), ("BIOS", "5")], &["/f/BMC"][..], Some("3"), false),
        ] {
            let targets: Vec<String> = targets.iter().map(|path| (*path).to_owned()).collect();
            let is = is_installed(&shown(items(&old)), &items(&now), &targets, wanted);
            assert_eq!(is, expected, "{now:?} {targets:?} {wanted:?}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_the_name_of_one_item() {
        let inventory = shown(items(&[("BMC", "1"), ("NIC", "1"), ("NIC", "2")]));
        let of = |wanted: &str| targets(&[wanted.to_owned()], &inventory);
        assert_eq!(of("BMC"), Ok(vec!["/f/BMC".to_owned()]));
        assert_eq!(of("/x/y"), Ok(vec!["/x/y".to_owned()]));
        assert!(of("NIC").unwrap_err().contains("several"));
        assert!(of("GPU").unwrap_err().contains("BMC, NIC, NIC"));
    }
}
