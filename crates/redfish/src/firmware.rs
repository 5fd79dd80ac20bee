// SPDX-License-Identifier: AGPL-3.0-or-later
//! Firmware through the BMC's UpdateService: pulled by the BMC or pushed to it, its task followed to
//! the end. What is installed is told by the inventory, not by the task.

use serde::Serialize;
use serde_json::{Value, json};
use url::Url;

use crate::machine::link;
use crate::transport::{Answer, foreign};
use crate::{Bmc, Error};

/// Parts of a machine whose firmware is listed; a large server has some sixty.
const ITEMS_MAX: usize = 200;

/// One item of the firmware inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Firmware {
    pub path: String,
    pub name: String,
    pub version: String,
}

impl Bmc {
    /// What is installed, by the BMC's word.
    pub async fn firmware(&self) -> Result<Vec<Firmware>, Error> {
        let service = self.update_service().await?;
        let Some(path) = link(&service["FirmwareInventory"]) else {
            return Err(Error::Unsupported("a firmware inventory"));
        };
        let links = self.get(&path).await?.body;
        let links = links["Members"].as_array().cloned().unwrap_or_default();
        let mut items = Vec::new();
        for path in links.iter().filter_map(link).take(ITEMS_MAX) {
            let body = self.get(&path).await?.body;
            let text = |name: &str| foreign(body[name].as_str().unwrap_or_default());
            items.push(Firmware { name: text("Name"), version: text("Version"), path });
        }
        Ok(items)
    }

    /// Lets the BMC fetch an image from one of our own URLs and install it; ends when its task does.
    pub async fn update_from(&self, image: &Url, targets: &[String]) -> Result<(), Error> {
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
        let answer = self.while_busy(|| self.post_variants(path, &bodies)).await?;
        self.follow_update(answer).await
    }

    /// Pushes an image to the BMC and installs it; ends when the BMC's task does.
    pub async fn push_update(
        &self,
        file_name: &str,
        image: &[u8],
        targets: &[String],
    ) -> Result<(), Error> {
        let service = self.update_service().await?;
        let path = service["MultipartHttpPushUri"].as_str();
        let path = path.ok_or(Error::Unsupported("a multipart push of firmware"))?;
        let mut parameters = json!({"@Redfish.OperationApplyTime": "Immediate"});
        if !targets.is_empty() {
            parameters["Targets"] = json!(targets);
        }
        let (boundary, body) = multipart(&parameters, file_name, image)?;
        let kind = format!("multipart/form-data; boundary={boundary}");
        // Not repeated: a BMC that has it may be installing it.
        let answer = self.post_bytes(path, &kind, body).await?;
        self.follow_update(answer).await
    }

    async fn update_service(&self) -> Result<Value, Error> {
        let root = self.get("/redfish/v1/").await?.body;
        let path = link(&root["UpdateService"]).ok_or(Error::Unsupported("an UpdateService"))?;
        Ok(self.get(&path).await?.body)
    }

    async fn follow_update(&self, answer: Answer) -> Result<(), Error> {
        self.follow_for(answer, self.budgets.update).await
    }
}

/// The two parts that DSP0266 13.7 asks for, and what separates them: random, so that no image holds
/// it.
fn multipart(
    parameters: &Value,
    file_name: &str,
    image: &[u8],
) -> Result<(String, Vec<u8>), Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Error::Setup(error.to_string()))?;
    let boundary = format!("shoal-{}", crate::tls::hex(&random));
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let file_name: String = file_name.chars().filter(is_plain).collect();
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"UpdateParameters\"\r\n\
         Content-Type: application/json\r\n\r\n{parameters}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"UpdateFile\"; \
         filename=\"{file_name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(image);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Ok((boundary, body))
}
