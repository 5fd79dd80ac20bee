// SPDX-License-Identifier: AGPL-3.0-or-later
//! Virtual media: inserted and ejected, proved by reading the slot. Each may be done twice.

use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use crate::answer::Answer;
use crate::machine::slot_of;
use crate::patience::Repeat;
use crate::profile::Quirk;
use crate::{Bmc, Error, Slot};

/// How often an insert that is called a bad request is repeated: some BMCs say so while they work on
/// the insert before, which takes them seconds. A request that is bad stays so.
const BAD_REQUESTS_MAX: u32 = 3;

impl Bmc {
    /// Inserts a medium: ejects what is there, waits until the slot is empty, inserts, and waits
    /// until the BMC reports our URL. A slot that claims to hold it already is not believed: BMCs
    /// keep stale claims.
    pub async fn insert(&self, slot: &Slot, url: &Url) -> Result<(), Error> {
        if slot.insert_path.is_none() {
            return Err(Error::Unsupported("InsertMedia in this slot"));
        }
        self.eject(slot).await?;
        let deadline = Instant::now() + self.budgets.effect;
        let mut bad_requests = 0;
        loop {
            match self.insert_once(slot, url).await {
                Ok(answer) => break self.follow(answer).await?,
                Err(error @ Error::Status { .. }) => {
                    // The answer to the first request may have been lost, and the repeated one is
                    // refused because the slot is taken: by us.
                    let now = self.slot(slot).await?;
                    if now.inserted && now.image.as_deref() == Some(url.as_str()) {
                        self.settled();
                        return Ok(());
                    }
                    let is_busy = match error {
                        Error::Status { status: 409, .. } => true,
                        Error::Status { status: 400, .. } => {
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
        // Some BMCs answer at once and download the medium after that.
        self.until(&what, self.budgets.insert, &slot.path, |body| {
            let now = slot_of(&slot.path, body);
            now.inserted && now.image.as_deref().is_none_or(|image| image == url.as_str())
        })
        .await
    }

    async fn insert_once(&self, slot: &Slot, url: &Url) -> Result<Answer, Error> {
        let path = slot.insert_path.as_deref().unwrap_or(&slot.path);
        if slot.is_patched {
            let body = json!({"Image": url.as_str(), "Inserted": true, "WriteProtected": true});
            return self.patch(path, &body).await;
        }
        self.post_variants(path, &insert_bodies(slot, url), Repeat::Freely).await
    }

    /// Empties a slot; an empty one is left alone.
    pub async fn eject(&self, slot: &Slot) -> Result<(), Error> {
        if !slot_of(&slot.path, &self.look(&slot.path).await?.body).inserted {
            return Ok(());
        }
        match self.eject_once(slot).await {
            Ok(answer) => self.follow(answer).await?,
            // It may be gone all the same; the slot tells.
            Err(Error::Status { .. }) if !self.slot(slot).await?.inserted => {}
            Err(error) => return Err(error),
        }
        let what = format!("eject from {}", slot.path);
        self.until(&what, self.budgets.effect, &slot.path, |body| {
            !slot_of(&slot.path, body).inserted
        })
        .await
    }

    async fn eject_once(&self, slot: &Slot) -> Result<Answer, Error> {
        let Some(eject) = slot.eject_path.as_deref() else {
            if slot.is_patched {
                return self.patch(&slot.path, &json!({"Image": null, "Inserted": false})).await;
            }
            return Err(Error::Unsupported("EjectMedia in this slot"));
        };
        // Most take no body, some demand an empty object, and plain HTTP servers answer 411 to none.
        let mut bodies = [None, Some(json!({}))];
        if slot.profile.has(Quirk::EjectWithObject) {
            bodies.reverse();
        }
        self.while_busy(|| self.post_variants(eject, &bodies, Repeat::Freely)).await
    }

    /// Whether something is in the slot now. `None`: the BMC has no such slot any more.
    pub async fn is_inserted(&self, slot: &Slot) -> Result<Option<bool>, Error> {
        match self.slot(slot).await {
            Ok(now) => Ok(Some(now.inserted)),
            Err(Error::Status { status: 404 | 410, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn slot(&self, slot: &Slot) -> Result<Slot, Error> {
        Ok(slot_of(&slot.path, &self.get(&slot.path).await?.body))
    }
}

/// Plain first: many BMCs refuse what they do not know, and others demand it. What a BMC is known to
/// demand goes before that.
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
