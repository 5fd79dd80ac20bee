// SPDX-License-Identifier: AGPL-3.0-or-later
//! Firmware updates through the BMC's UpdateService: pulled by the BMC or pushed to it, with the task followed to its
//! end. The inventory, not the task, shows what is installed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use url::Url;

use crate::answer::Answer;
use crate::patience::Repeat;
use crate::{Bmc, Error, links};

/// Most items of the inventory that are listed. A large server has about sixty.
const ITEMS_MAX: usize = 200;

/// Bytes of a pushed image that are in memory at a time.
const CHUNK_BYTES: usize = 128 << 10;

/// One item of the firmware inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Firmware {
    pub path: String,
    pub name: String,
    pub version: String,
}

/// An update that the BMC has accepted, whose result is not known yet.
#[derive(Debug)]
pub struct Accepted(Answer);

/// An image file to push.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    pub path: &'a Path,
    /// The name that is sent to the BMC. Some BMCs depend on its extension.
    pub file_name: &'a str,
}

impl Bmc {
    /// The installed firmware, as the BMC reports it.
    pub async fn firmware(&self) -> Result<Vec<Firmware>, Error> {
        let service = self.update_service().await?;
        let Some(path) = links::of(&service["FirmwareInventory"]) else {
            return Err(Error::Unsupported("a firmware inventory"));
        };
        let links = self.get(&path).await?.body;
        let links = links["Members"].as_array().cloned().unwrap_or_default();
        let mut items = Vec::new();
        for path in links.iter().filter_map(links::of).take(ITEMS_MAX) {
            let body = self.get(&path).await?.body;
            let text = |name: &str| self.foreign(body[name].as_str().unwrap_or_default());
            items.push(Firmware { name: text("Name"), version: text("Version"), path });
        }
        Ok(items)
    }

    /// Has the BMC fetch an image from one of our URLs and install it. Returns as soon as the BMC has accepted the
    /// request.
    pub async fn update_from(&self, image: &Url, targets: &[String]) -> Result<Accepted, Error> {
        let service = self.update_service().await?;
        let action = &service["Actions"]["#UpdateService.SimpleUpdate"]["target"];
        let path = action.as_str().ok_or(Error::Unsupported("UpdateService.SimpleUpdate"))?;
        let protocol = image.scheme().to_ascii_uppercase();
        let mut plain = json!({"ImageURI": image.as_str()});
        if !targets.is_empty() {
            plain["Targets"] = json!(targets);
        }
        let mut with_protocol = plain.clone();
        with_protocol["TransferProtocol"] = protocol.into();
        let bodies = [Some(plain), Some(with_protocol)];
        // If the response was lost, the BMC may already be installing.
        let post = || self.post_variants(path, &bodies, Repeat::IfNotTaken);
        Ok(Accepted(self.while_busy(post).await?))
    }

    /// Pushes an image to the BMC and has it installed. Returns as soon as the BMC has received it. The image is read
    /// while it is sent.
    pub async fn push_update(
        &self,
        image: Image<'_>,
        targets: &[String],
    ) -> Result<Accepted, Error> {
        let service = self.update_service().await?;
        let path = service["MultipartHttpPushUri"].as_str();
        let path = path.ok_or(Error::Unsupported("a multipart push of firmware"))?;
        let mut parameters = json!({"@Redfish.OperationApplyTime": "Immediate"});
        if !targets.is_empty() {
            parameters["Targets"] = json!(targets);
        }
        let Multipart { boundary, length, body } = multipart(&parameters, image).await?;
        let kind = format!("multipart/form-data; boundary={boundary}");
        // Not repeated: a BMC that has received it may already be installing.
        Ok(Accepted(self.post_stream(path, &kind, length, body).await?))
    }

    /// Follows an update's task to its end, even if the BMC restarts. The success of the task does not prove what is
    /// installed.
    pub async fn finish_update(&self, accepted: Accepted) -> Result<(), Error> {
        self.follow_for(accepted.0, self.budgets.update).await
    }

    /// Reads the inventory until `is_done` holds. A BMC that restarts with its new firmware is waited for as long as
    /// an update may take. Once the BMC responds, the time limit for an effect applies.
    pub async fn firmware_when(
        &self,
        is_done: impl Fn(&[Firmware]) -> bool,
    ) -> Result<Vec<Firmware>, Error> {
        let patience = Instant::now() + self.budgets.update;
        let mut deadline = None;
        loop {
            match self.firmware().await {
                Ok(items) if is_done(&items) => return Ok(items),
                Ok(_) => {
                    let end = Instant::now() + self.budgets.effect;
                    if Instant::now() > *deadline.get_or_insert(end) {
                        let (what, budget) = ("the new firmware".into(), self.budgets.effect);
                        return Err(Error::NotEffective { what, budget });
                    }
                }
                Err(error) if Instant::now() > patience || !is_of_restart(&error) => {
                    return Err(error);
                }
                Err(_) => {}
            }
            tokio::time::sleep(self.budgets.poll).await;
        }
    }

    async fn update_service(&self) -> Result<Arc<Value>, Error> {
        let root = self.get("/redfish/v1/").await?.body;
        let path =
            links::of(&root["UpdateService"]).ok_or(Error::Unsupported("an UpdateService"))?;
        Ok(self.get(&path).await?.body)
    }
}

/// Whether a restarting BMC may cause this error: no response, or a service that is not ready yet.
fn is_of_restart(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Status { status, .. } => matches!(status, 404 | 500..=599),
        _ => false,
    }
}

/// A multipart body with two parts.
struct Multipart {
    boundary: String,
    length: u64,
    body: reqwest::Body,
}

/// The two parts that DSP0266 13.7 requires. The boundary is random, so that no image contains it.
async fn multipart(parameters: &Value, image: Image<'_>) -> Result<Multipart, Error> {
    let unreadable = |source| Error::Image { path: image.path.to_owned(), source };
    let file = tokio::fs::File::open(image.path).await.map_err(unreadable)?;
    let image_bytes = file.metadata().await.map_err(unreadable)?.len();
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Error::Setup(error.to_string()))?;
    let boundary = format!("shoal-{}", crate::tls::hex(&random));
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let file_name: String = image.file_name.chars().filter(is_plain).collect();
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"UpdateParameters\"\r\n\
         Content-Type: application/json\r\n\r\n{parameters}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"UpdateFile\"; \
         filename=\"{file_name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + image_bytes + tail.len() as u64;
    let text = |text: String| stream::iter([Ok::<_, io::Error>(text.into())]);
    let bytes = ReaderStream::with_capacity(file, CHUNK_BYTES);
    let body = reqwest::Body::wrap_stream(text(head).chain(bytes).chain(text(tail)));
    Ok(Multipart { boundary, length, body })
}
