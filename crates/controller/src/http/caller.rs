// SPDX-License-Identifier: AGPL-3.0-or-later
//! The sender of a request: its address, and how long it has to wait after too many refusals.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, StatusCode, header};

use super::problem::{Answer, refuse};
use crate::access::throttle::{Credential, FAILURES_MAX, REFUSALS_MAX, Throttle};
use crate::keys::sha256;

/// The address of a request, and the hash of its credential if it carries one.
pub struct Caller {
    from: Option<IpAddr>,
    credential: Option<Credential>,
}

impl Caller {
    pub fn of(headers: &HeaderMap, extensions: &Extensions) -> Caller {
        let from =
            extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
        let credential = [header::AUTHORIZATION.as_str(), "x-webhook-secret"]
            .iter()
            .find_map(|name| headers.get(*name))
            .map(|value| sha256(value.as_bytes()));
        Caller { from, credential }
    }

    pub fn ip(&self) -> Option<IpAddr> {
        self.from
    }

    pub fn address(&self) -> Option<String> {
        self.from.map(|from| from.to_string())
    }

    /// The address for which wrong tokens are counted. Not for loopback: a proxy on this host forwards the requests
    /// of all clients, and one of them must not shut out the others.
    fn counted(&self) -> Option<IpAddr> {
        self.from.filter(|from| self.credential.is_some() && !from.is_loopback())
    }

    /// Refuses if too many wrong tokens came from this address, even with a correct token: otherwise guessing could
    /// go on. Refuses a token that was refused too often as well.
    pub fn wait(&self, throttle: &Throttle) -> Answer<()> {
        let now = Instant::now();
        let seconds = |wait: Duration| wait.max(Duration::from_secs(1)).as_secs();
        let refusal =
            |title, detail| refuse(StatusCode::TOO_MANY_REQUESTS, "throttled", title, detail);
        if let Some(from) = self.counted()
            && let Some(wait) = throttle.wait(from, now)
        {
            let seconds = seconds(wait);
            let detail = format!(
                "more than {FAILURES_MAX} requests with wrong tokens came from {from} within a minute; ask again in {seconds} s with a good one"
            );
            return Err(refusal("too many wrong tokens", detail));
        }
        if let Some(credential) = &self.credential
            && let Some(wait) = throttle.wait_of(credential, now)
        {
            let seconds = seconds(wait);
            let detail = format!(
                "more than {REFUSALS_MAX} requests with this token were refused within a minute, as it may not do what they asked for or its attempt is over; ask again in {seconds} s"
            );
            return Err(refusal("too many refused requests", detail));
        }
        Ok(())
    }

    /// Counts a response that says that the token is wrong or not sufficient.
    pub fn judge(&self, throttle: &Throttle, status: StatusCode) {
        let now = Instant::now();
        match (status, self.counted(), &self.credential) {
            (StatusCode::UNAUTHORIZED, Some(from), _) => throttle.failed(from, now),
            (StatusCode::FORBIDDEN | StatusCode::GONE, _, Some(credential)) => {
                throttle.refused(credential.clone(), now);
            }
            _ => {}
        }
    }
}
