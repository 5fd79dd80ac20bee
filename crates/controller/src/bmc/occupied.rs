// SPDX-License-Identifier: AGPL-3.0-or-later
//! Finds out what is in the media slots of a BMC. `media::occupants` decides whose it is.

use redfish::Slot;

use crate::bmc::Bmcs;
use crate::keys::sha256;
use crate::media::occupants::{self, HTTP_BOOT_URI, Known, Occupant, Occupants, token_of};
use crate::store::{self, Issued};

/// Whose the media are in these slots and in the URL that the firmware is to download. `job`: the job that looks, if
/// any.
pub async fn in_places(
    bmcs: &Bmcs,
    server: &str,
    job: Option<&str>,
    slots: &[Slot],
    http_boot_uri: Option<&str>,
) -> Result<Occupants, store::Error> {
    let filled = bmcs.store.filled_slots(server).await?;
    let bases = [&bmcs.settings.media_url, &bmcs.settings.http_boot_url];
    let known = Known { job, filled: &filled, bases };
    let mut occupants = Occupants::default();
    let mut emptied = Vec::new();
    for slot in slots {
        let issued = issued_to(bmcs, slot.image.as_deref()).await?;
        let occupant = occupants::of_slot(&known, slot, issued.as_ref());
        if occupant == Occupant::Nothing && filled.iter().any(|(path, _)| *path == slot.path) {
            emptied.push(slot.path.clone());
        }
        occupants.set(&slot.path, occupant);
    }
    if let Some(uri) = http_boot_uri {
        let issued = issued_to(bmcs, Some(uri)).await?;
        occupants.set(HTTP_BOOT_URI, occupants::of_url(&known, uri, issued.as_ref()));
    }
    bmcs.store.emptied(server, emptied).await?;
    Ok(occupants)
}

/// The job or probe for which the medium of an image's URL was issued, by the token in that URL.
pub async fn issued_to(bmcs: &Bmcs, image: Option<&str>) -> Result<Option<Issued>, store::Error> {
    match image.and_then(token_of) {
        Some(token) => bmcs.store.issued_to(sha256(token.as_bytes())).await,
        None => Ok(None),
    }
}
