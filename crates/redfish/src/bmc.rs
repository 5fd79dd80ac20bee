// SPDX-License-Identifier: AGPL-3.0-or-later
//! One BMC: its requests with login, repetitions and transcript, and what is known of its state. A request on its own
//! is in `transport`, the login in `session`.

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

/// How a BMC is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Scheme, host and port.
    pub url: Url,
    pub username: String,
    pub password: Secret,
    pub trust: Trust,
    /// Where a person knows better than the BMC says.
    pub profile: Option<Profile>,
}

/// One BMC, logged in.
pub struct Bmc {
    pub(crate) transport: Transport,
    pub(crate) session: Session,
    transcript: std::sync::Mutex<Transcript>,
    pub(crate) seen: Seen,
    /// A change whose effect was not read back yet.
    unsettled: AtomicBool,
    pub(crate) profile: Option<Profile>,
    pub(crate) budgets: Budgets,
}

impl Bmc {
    /// Logs in: one session, or Basic where the BMC has no sessions. A refused login is not repeated.
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
        // DSP0266 demands the link where there are sessions. sushy-tools has none, and answers 401 to
        // a login: as if the credentials were wrong.
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

    /// Ends the session. Failing to end one is not worth an error: the BMC drops an idle session by itself.
    /// May be called twice.
    pub async fn close(&self) {
        self.session.close(&self.transport).await;
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.call(Method::GET, path, None, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.call(Method::POST, path, Some(body), None).await
    }

    /// A request, repeated while the BMC is merely busy or away, and once more with a new session
    /// where the BMC has dropped ours.
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

    /// One POST of a body of this length, which is not repeated. It has the time of an insert.
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
            // With its length told: small web servers of BMCs take no chunked body.
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
            // What went out as a stream is gone.
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

    /// Whether the BMC may yet do something that it was asked for: nobody has seen its effect, be it
    /// that the answer did not come in time, that the effect did not, or that nobody looked.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::SeqCst)
    }

    /// The effect of what was asked for was seen.
    pub fn settled(&self) {
        self.unsettled.store(false, Ordering::SeqCst);
    }

    /// Whether the BMC refused the credentials, at the login or since: accounts are locked after a few
    /// such tries, so this sends them no more.
    pub fn is_refused(&self) -> bool {
        self.session.is_refused()
    }

    /// What was asked and answered since the last time, without secrets.
    pub fn transcript(&self) -> Vec<Exchange> {
        self.recording().take()
    }

    fn recording(&self) -> std::sync::MutexGuard<'_, Transcript> {
        self.transcript.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The request, once.
    pub(crate) async fn once(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, Error> {
        let begun = self.recording().begin(method.as_str(), path, body);
        // Before the request: whoever waits for its answer may be dropped there.
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
        // Of a session it says that the BMC has ended it.
        let error = self.transport.refused(what, response).await.of_credentials(&[401]);
        if matches!(error, Error::Unauthorized { .. }) && self.session.is_basic().await {
            self.session.refuse();
        }
        Err(error)
    }

    /// A resource as it was a moment ago, where it was read then and nothing was asked of the BMC since:
    /// what a change begins with, and never what proves one.
    pub(crate) async fn look(&self, path: &str) -> Result<Answer, Error> {
        match self.seen.find(path, Instant::now()) {
            Some(answer) => Ok(answer),
            None => self.get(path).await,
        }
    }

    /// What was read is too long ago, whenever that was.
    pub fn forget_seen(&self) {
        self.seen.forget();
    }

    /// A link as a URL: never to another host, whatever the BMC says.
    pub(crate) fn same_authority(&self, link: &str) -> Result<Url, Error> {
        self.transport.same_authority(link)
    }

    /// The BMC's words, bounded and without what opens it.
    pub(crate) fn foreign(&self, text: &str) -> String {
        self.transport.foreign(text)
    }
}
