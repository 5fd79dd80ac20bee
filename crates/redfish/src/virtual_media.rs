// SPDX-License-Identifier: AGPL-3.0-or-later
//! Inserting and ejecting virtual media, confirmed by reading the slot. Each may be repeated.

use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use crate::answer::Answer;
use crate::patience::Repeat;
use crate::profile::Quirk;
use crate::slot::{Way, slot_of};
use crate::{Bmc, Error, Slot};

/// How often an insert that was refused as a bad request is repeated. Some BMCs return this for a few seconds while
/// they process the previous insert. A request that is really malformed stays refused.
const BAD_REQUESTS_MAX: u32 = 3;
/// How many conflict pauses to wait for a missing eject action. A slot that shows the action only while a medium is
/// inserted may show it late.
const EJECT_LOOKS_MAX: u32 = 6;

impl Bmc {
    /// Replaces the medium in a slot. Ejects even if the slot already reports the wanted medium, because BMCs report
    /// stale media. The caller decides what may be ejected.
    pub async fn replace(&self, slot: &Slot, url: &Url) -> Result<(), Error> {
        if slot.insert.is_empty() {
            return Err(Error::Unsupported("InsertMedia in this slot"));
        }
        self.eject(slot).await?;
        self.insert_into_empty(slot, url).await
    }

    /// Inserts a medium into an empty slot, and waits until the BMC reports our URL. A medium that was inserted since
    /// the caller's last look is not ejected.
    pub async fn insert(&self, slot: &Slot, url: &Url) -> Result<(), Error> {
        if slot.insert.is_empty() {
            return Err(Error::Unsupported("InsertMedia in this slot"));
        }
        if slot.as_now(&self.look(&slot.path).await?).inserted {
            return Err(Error::Occupied { slot: slot.path.clone() });
        }
        self.insert_into_empty(slot, url).await
    }

    async fn insert_into_empty(&self, slot: &Slot, url: &Url) -> Result<(), Error> {
        let deadline = Instant::now() + self.budgets.effect;
        let mut bad_requests = 0;
        loop {
            match self.insert_once(slot, url).await {
                Ok(answer) => break self.follow(answer).await?,
                Err(error @ Error::Status { .. }) => {
                    // The response to the first request may have been lost, and the repetition is refused because our
                    // own medium is already in the slot.
                    let now = self.slot(slot).await?;
                    if now.inserted && now.image.as_deref() == Some(url.as_str()) {
                        self.settled();
                        return Ok(());
                    }
                    let is_busy = match error {
                        Error::Status { status: 409, .. } => true,
                        Error::Status { status: 400, .. } if !error.is_of_value() => {
                            bad_requests += 1;
                            bad_requests <= BAD_REQUESTS_MAX
                        }
                        _ => false,
                    };
                    if !is_busy || Instant::now() + self.budgets.conflict > deadline {
                        return Err(error);
                    }
                    tokio::time::sleep(self.budgets.conflict).await;
                }
                Err(error) => return Err(error),
            }
        }
        let what = format!("insert into {}", slot.path);
        // Some BMCs respond at once and download the medium afterwards.
        self.until(&what, self.budgets.insert, &slot.path, |body| {
            let now = slot_of(&slot.path, body, None);
            now.inserted && now.image.as_deref().is_none_or(|image| image == url.as_str())
        })
        .await
    }

    /// Inserts in the first way that the slot offers now. If a way turns out to be missing, tries the next.
    async fn insert_once(&self, slot: &Slot, url: &Url) -> Result<Answer, Error> {
        let now = slot.as_now(&self.look(&slot.path).await?);
        let mut refused = None;
        for way in &now.insert {
            let result = match way {
                Way::Action(path) => {
                    self.post_variants(path, &insert_bodies(slot, url), Repeat::Freely).await
                }
                Way::Oem(path, oem) => self.post(path, &oem.insert_body(url.as_str())).await,
                Way::Patch => self.insert_by_patch(&slot.path, url).await,
            };
            match result {
                Err(error) if is_missing(&error) => refused = refused.or(Some(error)),
                result => return result,
            }
        }
        Err(refused.unwrap_or(Error::Unsupported("InsertMedia in this slot")))
    }

    async fn insert_by_patch(&self, path: &str, url: &Url) -> Result<Answer, Error> {
        let whole = json!({"Image": url.as_str(), "Inserted": true, "WriteProtected": true});
        match self.patch(path, &whole).await {
            // The other properties are optional, and may be read-only.
            Err(error @ Error::Status { status: 400 | 422, .. }) if !error.is_of_value() => {
                self.patch(path, &json!({"Image": url.as_str()})).await
            }
            result => result,
        }
    }

    /// Empties a slot. Does nothing if it is empty.
    pub async fn eject(&self, slot: &Slot) -> Result<(), Error> {
        if !slot.as_now(&self.look(&slot.path).await?).inserted {
            return Ok(());
        }
        let mut looks = 0;
        loop {
            match self.eject_once(slot).await {
                Ok(answer) => break self.follow(answer).await?,
                // The medium may be ejected in spite of the error, so the slot is read.
                Err(error @ (Error::Status { .. } | Error::Unsupported(_))) => {
                    if !self.slot(slot).await?.inserted {
                        break;
                    }
                    looks += 1;
                    if !is_missing(&error) || looks > EJECT_LOOKS_MAX {
                        return Err(error);
                    }
                    tokio::time::sleep(self.budgets.conflict).await;
                    self.seen.forget();
                }
                Err(error) => return Err(error),
            }
        }
        let what = format!("eject from {}", slot.path);
        self.until(&what, self.budgets.effect, &slot.path, |body| {
            !slot_of(&slot.path, body, None).inserted
        })
        .await
    }

    /// Ejects in the first way that the slot offers now. EjectMedia may only be offered while a medium is inserted.
    async fn eject_once(&self, slot: &Slot) -> Result<Answer, Error> {
        let now = slot.as_now(&self.look(&slot.path).await?);
        // Most BMCs accept no body, some require an empty object, and plain HTTP servers return 411 without a body.
        let mut bodies = [None, Some(json!({}))];
        if slot.profile.has(Quirk::EjectWithObject) {
            bodies.reverse();
        }
        let mut refused = None;
        for way in &now.eject {
            let result = match way {
                Way::Action(path) => {
                    self.while_busy(|| self.post_variants(path, &bodies, Repeat::Freely)).await
                }
                Way::Oem(path, oem) => {
                    let body = oem.eject_body();
                    self.while_busy(|| self.post(path, &body)).await
                }
                Way::Patch => self.eject_by_patch(&slot.path).await,
            };
            match result {
                Err(error) if is_missing(&error) || *way == Way::Patch => {
                    refused = refused.or(Some(error));
                }
                result => return result,
            }
        }
        Err(refused.unwrap_or(Error::Unsupported("EjectMedia in this slot")))
    }

    async fn eject_by_patch(&self, path: &str) -> Result<Answer, Error> {
        let mut last = Error::Unsupported("a PATCH of this slot");
        for body in [
            json!({"Image": null, "Inserted": false}),
            json!({"Image": null}),
            json!({"Inserted": false}),
        ] {
            match self.patch(path, &body).await {
                Err(error @ Error::Status { status: 400 | 422, .. }) => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    /// Empties a slot if it contains this medium, or does not show which. A slot with another medium is left alone.
    pub async fn eject_own(&self, slot: &Slot, url: &Url) -> Result<(), Error> {
        let now = slot.as_now(&self.look(&slot.path).await?);
        match now.image.as_deref() {
            Some(image) if image != url.as_str() => Ok(()),
            _ if now.is_console => Ok(()),
            _ => self.eject(slot).await,
        }
    }

    /// Reads the slot again. `None`: the BMC no longer has this slot.
    pub async fn slot_now(&self, slot: &Slot) -> Result<Option<Slot>, Error> {
        match self.slot(slot).await {
            Ok(now) => Ok(Some(now)),
            Err(Error::Status { status: 404 | 410, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the slot again.
    async fn slot(&self, slot: &Slot) -> Result<Slot, Error> {
        Ok(slot.as_now(&self.get(&slot.path).await?))
    }
}

/// Whether the slot does not have this way.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Status { status: 404 | 405 | 501, .. } | Error::Unsupported(_))
}

/// The bodies to try for an insert. The plain one comes first: many BMCs refuse properties that they do not know, and
/// others require them. The form that a BMC is known to require comes before that.
fn insert_bodies(slot: &Slot, url: &Url) -> Vec<Option<Value>> {
    let image = url.as_str();
    let protocol = url.scheme().to_ascii_uppercase();
    let with_protocol = json!({"Image": image, "TransferProtocolType": protocol});
    let with_login = json!({
        "Image": image, "TransferProtocolType": protocol, "TransferMethod": "Stream",
        "UserName": "none", "Password": "none"
    });
    let mut bodies = vec![
        json!({"Image": image}),
        json!({"Image": image, "Inserted": true, "WriteProtected": true}),
        with_protocol.clone(),
        json!({"Image": image, "TransferProtocolType": protocol, "TransferMethod": "Stream"}),
        with_login.clone(),
    ];
    if slot.profile.has(Quirk::InsertNamesProtocol) {
        bodies.insert(0, with_protocol);
    }
    if slot.profile.has(Quirk::InsertWithLogin) {
        bodies.insert(0, with_login);
    }
    bodies.into_iter().map(Some).collect()
}
