// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reading a BMC's responses. A body is limited in size, depth and time, also after decompression. Some BMCs compress
//! without being asked to (iLO 5 2.30, for some of its resources; DMTF/Redfish-Mockup-Creator#58).

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

/// Largest body. Responses are small; the system resource of a large server has about 100 KiB.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Lowest rate of a response in bytes per second. The slowest real BMC sends a few KiB.
const RATE_MIN: f64 = 256.0;
/// Longest Retry-After that is honoured. A BMC that updates its firmware takes ten minutes.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// How much of a body that is not JSON an error shows.
const SHOWN_CHARS_MAX: usize = 80;

/// A received body.
pub(crate) enum Body {
    Json(Value),
    /// Not JSON: its beginning without secrets, its content type, and the parser's reason.
    Other {
        text: String,
        kind: String,
        why: String,
    },
}

impl Body {
    /// Reads the body of a response. An empty body is `null`.
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

    /// The JSON value; `null` if the body is not JSON.
    pub fn json(self) -> Value {
        match self {
            Body::Json(value) => value,
            Body::Other { .. } => Value::Null,
        }
    }
}

/// A response with a 2xx status.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    /// The `Location` header, as a path at this BMC.
    pub location: Option<String>,
    pub etag: Option<String>,
    /// The methods that the resource supports, if the BMC sends `Allow`.
    pub allow: Option<String>,
    pub body: Arc<Value>,
}

impl Answer {
    /// Reads a 2xx response. Fails if it still arrives below the minimum rate after `grace`.
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
            // The effect is read back from the resource, so this body is not needed.
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

/// Decompresses a body. The compression is detected by its first bytes, because the header is sometimes missing or
/// wrong. `None` if the body is not compressed.
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
    // RFC 9110 8.4.1.2 requires the zlib format; some servers omit its frame.
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
    // The date form would need a calendar. The normal pause is used instead.
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
