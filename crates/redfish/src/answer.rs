// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a BMC answers: its body, bounded in size, depth and time.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::{Bmc, Error, links};

/// A BMC's answers are small; a system resource of a large server has some 100 KiB.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Fewest bytes a second of an answer; the slowest real BMC sends some KiB.
const RATE_MIN: f64 = 256.0;
/// Longest Retry-After that is believed; a BMC that updates its firmware takes ten minutes.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// An answer with a 2xx status.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    /// As a path at this BMC.
    pub location: Option<String>,
    pub etag: Option<String>,
    /// The methods that the resource takes, where the BMC says.
    pub allow: Option<String>,
    pub body: Arc<Value>,
}

impl Bmc {
    pub(crate) async fn answer(&self, what: &str, response: Response) -> Result<Answer, Error> {
        let text = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let status = response.status();
        let [location, etag, allow] = [header::LOCATION, header::ETAG, header::ALLOW].map(text);
        let location = location.and_then(|link| links::path_at_home(response.url(), &link));
        let body = self.body_of(what, response).await?.into();
        Ok(Answer { status, location, etag, allow, body })
    }

    /// The JSON of an answer, or null where it has no body.
    pub(crate) async fn body_of(&self, what: &str, response: Response) -> Result<Value, Error> {
        let bytes = bounded(what, response, self.budgets.grace).await?;
        match bytes.trim_ascii() {
            [] => Ok(Value::Null),
            json => crate::document::parse(json)
                .map_err(|why| Error::BadAnswer { what: what.into(), why }),
        }
    }
}

pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    // The date form needs a calendar; the normal pause serves for it.
    let secs: u64 = value.trim().parse().ok()?;
    Some(Duration::from_secs(secs).min(RETRY_AFTER_MAX))
}

pub(crate) async fn bounded(
    what: &str,
    mut response: Response,
    grace: Duration,
) -> Result<Vec<u8>, Error> {
    let bad = |why: String| Error::BadAnswer { what: what.into(), why };
    let mut bytes = Vec::new();
    let begun = Instant::now();
    loop {
        let chunk = response.chunk().await.map_err(|source| Error::Unreachable {
            what: what.into(),
            source: source.without_url(),
        })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(bad(format!("the answer is larger than {BODY_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&chunk);
        let elapsed = begun.elapsed();
        if elapsed > grace && (bytes.len() as f64) < elapsed.as_secs_f64() * RATE_MIN {
            return Err(bad(format!("the answer comes with less than {RATE_MIN} bytes a second")));
        }
    }
}
