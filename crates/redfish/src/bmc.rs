// SPDX-License-Identifier: AGPL-3.0-or-later
//! One BMC: requests with login, repetition and transcript, and the state that is known of it. A single request is in
//! `transport`, the login in `session`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Method, RequestBuilder, Response, header};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use crate::answer::Answer;
use crate::budgets::Budgets;
use crate::error::Error;
use crate::links::{self, Redirect};
use crate::patience::{Patience, Repeat};
use crate::profile::Profile;
use crate::secrets::{Secret, Secrets};
use crate::seen::Seen;
use crate::session::Session;
use crate::tls::Trust;
use crate::transcript::{Exchange, Transcript};
use crate::transport::Transport;

/// How to reach a BMC.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Scheme, host and port.
    pub url: Url,
    pub username: String,
    pub password: Secret,
    pub trust: Trust,
    /// Overrides the detected profile.
    pub profile: Option<Profile>,
}

/// A connection to one BMC, logged in.
pub struct Bmc {
    pub(crate) transport: Transport,
    pub(crate) session: Session,
    transcript: std::sync::Mutex<Transcript>,
    pub(crate) seen: Seen,
    /// A change was requested, and its effect has not been read back yet.
    unsettled: AtomicBool,
    pub(crate) profile: Option<Profile>,
    pub(crate) budgets: Budgets,
}

impl Bmc {
    /// Logs in with one session, or with Basic if the BMC has no sessions. A refused login is not repeated.
    pub async fn connect(endpoint: &Endpoint, budgets: Budgets) -> Result<Bmc, Error> {
        let secrets = Arc::new(Secrets::of_login(&endpoint.username, endpoint.password.text()));
        let transcript = Transcript::without(secrets.clone());
        let mut bmc = Bmc {
            transport: Transport::new(&endpoint.url, &endpoint.trust, secrets, budgets.grace)?,
            session: Session::new(&endpoint.username, &endpoint.password),
            transcript: std::sync::Mutex::new(transcript),
            seen: Seen::default(),
            unsettled: AtomicBool::new(false),
            profile: endpoint.profile,
            budgets,
        };
        let root = match bmc.get("/redfish/v1/").await {
            Err(Error::CertificateUnusable { .. }) if bmc.transport.was_shown_a_weak_key() => {
                bmc.transport.accept_weak_keys(&endpoint.trust)?;
                bmc.get("/redfish/v1/").await?.body
            }
            root => root?.body,
        };
        let sessions = root["Links"]["Sessions"]["@odata.id"].as_str();
        // DSP0266 requires this link if there are sessions. sushy-tools has no sessions, and answers a login with
        // 401, as if the credentials were wrong.
        if sessions.is_none() && root["SessionService"].is_null() {
            bmc.session.use_basic().await;
        } else {
            if let Some(sessions) = sessions {
                bmc.session.set_place(sessions);
            }
            bmc.log_in().await?;
        }
        Ok(bmc)
    }

    pub(crate) async fn log_in(&self) -> Result<(), Error> {
        self.session.log_in(&self.transport, &self.budgets).await
    }

    /// Ends the session. A failure is not reported, because the BMC drops an idle session by itself. May be called
    /// twice.
    pub async fn close(&self) {
        self.session.close(&self.transport).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.call(Method::GET, path, None, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.call(Method::POST, path, Some(body), None).await
    }

    /// Sends a request. Repeats it while the BMC is busy or unreachable, and once with a new session if the BMC has
    /// dropped the session.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, Error> {
        self.repeat(Repeat::Freely, method, path, body, etag).await
    }

    pub(crate) async fn repeat(
        &self,
        repeat: Repeat,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, Error> {
        let mut patience = Patience::new(repeat, &self.budgets);
        let mut may_log_in = true;
        loop {
            let error = match self.once(method.clone(), path, body, etag).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let has_session = self.session.is_open().await;
            if matches!(error, Error::Unauthorized { .. }) && has_session && may_log_in {
                may_log_in = false;
                self.log_in().await?;
                continue;
            }
            patience.spend_on(error).await?;
        }
    }

    /// Sends one POST with a streamed body of this length. It is not repeated. Its time limit is that of an insert.
    pub(crate) async fn post_stream(
        &self,
        path: &str,
        content_type: &str,
        length: u64,
        body: reqwest::Body,
    ) -> Result<Answer, Error> {
        let begun = self.recording().begin("POST", path, None);
        self.seen.forget();
        let result = async {
            let what = format!("POST {path}");
            let url = self.transport.same_authority(path)?;
            // The length is sent because small web servers of BMCs do not accept a chunked body.
            let request = self
                .session
                .credentials()
                .await?
                .put(self.transport.request(Method::POST, url.clone()))
                .timeout(self.budgets.insert)
                .header(header::CONTENT_TYPE, content_type)
                .header(header::CONTENT_LENGTH, length)
                .body(body);
            let response = self.transport.send(request, &what).await?;
            // A streamed body cannot be sent again.
            let response = match links::redirect(&Method::POST, &url, &response) {
                Redirect::None => response,
                Redirect::To(_) => {
                    let why = "a redirect, which an upload does not follow";
                    return Err(self.transport.redirected(&what, &response, why));
                }
                Redirect::Refused(why) => {
                    return Err(self.transport.redirected(&what, &response, &why));
                }
            };
            self.judged(&Method::POST, &what, response).await
        }
        .await;
        let seen = result.as_ref().map(|answer| (answer.status.as_u16(), &*answer.body));
        self.recording().end(&begun, seen);
        result
    }

    /// Whether the BMC may still carry out a request whose effect has not been seen: because the response or the
    /// effect did not come in time, or because the effect was not read.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::SeqCst)
    }

    /// Records that the effect of the request was seen.
    pub fn settled(&self) {
        self.unsettled.store(false, Ordering::SeqCst);
    }

    /// Whether the BMC refused the credentials, at the login or later. They are not sent again, because accounts are
    /// locked after a few failures.
    pub fn is_refused(&self) -> bool {
        self.session.is_refused()
    }

    /// The exchanges since the last call, without secrets.
    pub fn transcript(&self) -> Vec<Exchange> {
        self.recording().take()
    }

    fn recording(&self) -> std::sync::MutexGuard<'_, Transcript> {
        self.transcript.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sends a request once.
    pub(crate) async fn once(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, Error> {
        let begun = self.recording().begin(method.as_str(), path, body);
        // Set before the request, because the caller's future may be dropped while it waits for the response.
        let is_change = method != Method::GET;
        let was_unsettled = is_change && self.unsettled.swap(true, Ordering::SeqCst);
        if is_change {
            self.seen.forget();
        }
        let result = self.once_now(method, path, body, etag).await;
        if !is_change && let Ok(answer) = &result {
            self.seen.keep(path, answer, Instant::now());
        }
        if is_change && result.as_ref().is_err_and(Error::is_not_taken) {
            self.unsettled.store(was_unsettled, Ordering::SeqCst);
        }
        let seen = result.as_ref().map(|answer| (answer.status.as_u16(), &*answer.body));
        self.recording().end(&begun, seen);
        result
    }

    async fn once_now(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, Error> {
        let what = format!("{method} {path}");
        let budget = match method {
            Method::GET => self.budgets.read,
            _ if links::key(path).ends_with("InsertMedia") => self.budgets.insert,
            _ => self.budgets.request,
        };
        let credentials = self.session.credentials().await?;
        let url = self.transport.same_authority(path)?;
        let finish = |mut request: RequestBuilder| {
            request = credentials.put(request);
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(etag) = etag {
                request = request.header(header::IF_MATCH, etag);
            }
            request
        };
        let response = self.transport.travel(&what, method.clone(), url, budget, finish).await?;
        self.judged(&method, &what, response).await
    }

    async fn judged(
        &self,
        method: &Method,
        what: &str,
        response: Response,
    ) -> Result<Answer, Error> {
        if response.status().is_success() {
            return self.transport.answer(method, what, response).await;
        }
        // For a session, 401 means that the BMC has ended it.
        let error = self.transport.refused(what, response).await.of_credentials(&[401]);
        if matches!(error, Error::Unauthorized { .. }) && self.session.is_basic().await {
            self.session.refuse();
        }
        Err(error)
    }

    /// A resource from the short-lived cache, if it was read a moment ago and nothing was requested from the BMC
    /// since. A change may start from it, but is never confirmed by it.
    pub(crate) async fn look(&self, path: &str) -> Result<Answer, Error> {
        match self.seen.find(path, Instant::now()) {
            Some(answer) => Ok(answer),
            None => self.get(path).await,
        }
    }

    /// Empties the cache of recently read resources.
    pub fn forget_seen(&self) {
        self.seen.forget();
    }

    /// A link as a URL. Fails if it leads to another host.
    pub(crate) fn same_authority(&self, link: &str) -> Result<Url, Error> {
        self.transport.same_authority(link)
    }

    /// Text from the BMC, limited in length and without secrets.
    pub(crate) fn foreign(&self, text: &str) -> String {
        self.transport.foreign(text)
    }
}
