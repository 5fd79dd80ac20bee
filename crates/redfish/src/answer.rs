// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a BMC answers: its body, bounded in size, depth and time, also once it is decompressed. Some BMCs
//! compress without being asked (iLO 5 2.30, a part of its resources; DMTF/Redfish-Mockup-Creator#58).

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::document::{self, Unusable};
use crate::error::{Error, foreign};
use crate::links;
use crate::secrets::Secrets;

/// A BMC's answers are small; a system resource of a large server has some 100 KiB.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Fewest bytes a second of an answer; the slowest real BMC sends some KiB.
const RATE_MIN: f64 = 256.0;
/// Longest Retry-After that is believed; a BMC that updates its firmware takes ten minutes.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// Of a body that is no JSON, in an error.
const SHOWN_CHARS_MAX: usize = 80;

/// What came as a body.
pub(crate) enum Body {
    Json(Value),
    /// Its beginning without secrets, its type, and why it is no JSON.
    Other {
        text: String,
        kind: String,
        why: String,
    },
}

impl Body {
    /// The body of an answer: null where it has none.
    pub async fn of(
        what: &str,
        response: Response,
        grace: Duration,
        secrets: &Secrets,
    ) -> Result<Body, Error> {
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or("of no named type");
        let kind = foreign(kind, secrets);
        let bytes = bounded(what, response, grace).await?;
        let plain = document::trimmed(&bytes);
        if plain.is_empty() {
            return Ok(Body::Json(Value::Null));
        }
        Ok(match document::parse(plain) {
            Ok(body) => Body::Json(body),
            Err(Unusable::Bomb(why)) => {
                return Err(Error::BadAnswer { what: what.into(), why });
            }
            Err(Unusable::NotJson(why)) => {
                let all = secrets.hide(&String::from_utf8_lossy(plain)).into_owned();
                Body::Other { text: all.chars().take(SHOWN_CHARS_MAX).collect(), kind, why }
            }
        })
    }

    /// Null where it is no JSON.
    pub fn json(self) -> Value {
        match self {
            Body::Json(value) => value,
            Body::Other { .. } => Value::Null,
        }
    }
}

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

impl Answer {
    /// What a 2xx response says. An answer that still drips after `grace` is given up.
    pub async fn of(
        method: &Method,
        what: &str,
        response: Response,
        grace: Duration,
        secrets: &Secrets,
    ) -> Result<Answer, Error> {
        let text = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let status = response.status();
        let [location, etag, allow] = [header::LOCATION, header::ETAG, header::ALLOW].map(text);
        let location = location.and_then(|link| links::path_at_home(response.url(), &link));
        let is_read = method == Method::GET;
        let body = match Body::of(what, response, grace, secrets).await? {
            Body::Json(body) => body,
            // What was done is read back from the resource, whatever the BMC says of it here.
            Body::Other { text, .. } if !is_read => Value::String(text),
            Body::Other { text, kind, why } => {
                let why = format!("{why}; it is {kind} that begins with {text:?}");
                return Err(Error::BadAnswer { what: what.into(), why });
            }
        };
        let body = body.into();
        Ok(Answer { status, location, etag, allow, body })
    }
}

/// Undoes the compression of a body, which its first bytes tell: the header that should is missing or wrong
/// at times. `None` where it is not compressed.
fn decompressed(bytes: &[u8], encoding: &str) -> Option<Result<Vec<u8>, String>> {
    let within = |reader: &mut dyn Read| {
        let mut plain = Vec::new();
        let limit = BODY_BYTES_MAX as u64 + 1;
        match reader.take(limit).read_to_end(&mut plain) {
            Ok(_) if plain.len() > BODY_BYTES_MAX => {
                Err(format!("the answer is larger than {BODY_BYTES_MAX} bytes"))
            }
            Ok(_) => Ok(plain),
            Err(error) => Err(format!("the answer cannot be decompressed: {error}")),
        }
    };
    // RFC 1952, section 2.3.1.
    if bytes.starts_with(&[0x1f, 0x8b, 8]) {
        return Some(within(&mut flate2::read::GzDecoder::new(bytes)));
    }
    let is_json = matches!(document::trimmed(bytes).first(), None | Some(b'{' | b'['));
    if is_json || !encoding.trim().eq_ignore_ascii_case("deflate") {
        return None;
    }
    // RFC 9110 8.4.1.2 means zlib; some servers leave its frame out.
    let is_zlib = match bytes {
        // RFC 1950, section 2.2.
        [cmf, flg, ..] => cmf & 15 == 8 && (u16::from(*cmf) << 8 | u16::from(*flg)) % 31 == 0,
        _ => false,
    };
    Some(match is_zlib {
        true => within(&mut flate2::read::ZlibDecoder::new(bytes)),
        false => within(&mut flate2::read::DeflateDecoder::new(bytes)),
    })
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
    let encoding = response.headers().get(header::CONTENT_ENCODING);
    let encoding = encoding.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    let begun = Instant::now();
    loop {
        let chunk = response.chunk().await.map_err(|source| Error::Unreachable {
            what: what.into(),
            source: source.without_url(),
        })?;
        let Some(chunk) = chunk else {
            return decompressed(&bytes, &encoding).unwrap_or(Ok(bytes)).map_err(bad);
        };
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
