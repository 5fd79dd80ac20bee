// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal artifact uploads`: listing and cancelling unfinished uploads.

use anyhow::{Context, anyhow};
use api::artifacts::{OpenUpload, UploadList};
use serde_json::Value;

use crate::args::Output;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{show, text, time};

const PLACE: &str = "/api/v1/artifacts/uploads";
const HEAD: [&str; 7] = ["ID", "REPOSITORY", "WHO", "BEGUN", "LAST BYTES", "SIZE", "NOW"];

pub fn list(client: &Client, format: Output) -> Result<(), Failure> {
    let list = client.get(PLACE)?;
    show(format, &list, &HEAD, |list| {
        list["uploads"].as_array().into_iter().flatten().map(row).collect()
    });
    Ok(())
}

pub fn cancel(client: &Client, id: &str) -> Result<(), Failure> {
    let list: UploadList =
        serde_json::from_value(client.get(PLACE)?).context("read the open uploads")?;
    let id = whole_id(&list.uploads, id)?;
    client.delete(&format!("{PLACE}/{id}")).map(drop)
}

/// Returns the only id that begins so.
fn whole_id<'a>(uploads: &'a [OpenUpload], start: &str) -> anyhow::Result<&'a str> {
    let mut meant =
        uploads.iter().map(|upload| upload.id.as_str()).filter(|id| id.starts_with(start));
    match (meant.next(), meant.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(anyhow!(
            "there is no open upload {start:?}; `shoal artifact uploads list` shows those that there are"
        )),
        (Some(one), Some(other)) => {
            Err(anyhow!("{start:?} may be {one} or {other}; give more of it"))
        }
    }
}

fn row(upload: &Value) -> Vec<String> {
    let known = |pointer| match text(upload, pointer) {
        text if text.is_empty() => "not known".into(),
        text => text,
    };
    let bytes = upload["bytes"].as_u64().unwrap_or_default();
    vec![
        text(upload, "/id"),
        known("/repository"),
        known("/who"),
        time(&text(upload, "/begun_at")),
        time(&text(upload, "/written_at")),
        indicatif::BinaryBytes(bytes).to_string(),
        if upload["is_receiving"] == true { "receiving" } else { "waits" }.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_found_by_the_beginning_of_its_id() {
        let upload = |id: &str| OpenUpload {
            id: id.into(),
            repository: None,
            who: None,
            begun_at: jiff::Timestamp::UNIX_EPOCH,
            written_at: jiff::Timestamp::UNIX_EPOCH,
            bytes: 0,
            is_receiving: false,
        };
        let uploads = [upload("ab1"), upload("ab2"), upload("c")];
        assert_eq!(whole_id(&uploads, "ab2").unwrap(), "ab2");
        assert_eq!(whole_id(&uploads, "c").unwrap(), "c");
        for (start, told) in [("ab", "ab1 or ab2"), ("", "ab1 or ab2"), ("d", "no open upload")] {
            let error = whole_id(&uploads, start).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
