// SPDX-License-Identifier: AGPL-3.0-or-later
//! Requests to one BMC: what is sent, how often, and what is kept of it. The login is in `session`, the body
//! of an answer in `answer`, where a request may go in `links`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, header};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::answer::{Answer, bounded, retry_after};
use crate::error::foreign;
use crate::links::{self, Redirect};
use crate::patience::{Patience, Repeat};
use crate::refusal::{self, Refusal};
use crate::secrets::{Secret, Secrets};
use crate::seen::Seen;
use crate::session::{Auth, SESSIONS};
use crate::tls::{self, Keys, Shown, Trust};
use crate::transcript::{Exchange, Transcript};
use crate::{Error, Profile};

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

/// How long each kind of operation may take, and how often a state is looked at.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// One GET and its answer.
    pub read: Duration,
    /// One other request and its answer.
    pub request: Duration,
    /// After this an answer that drips is given up.
    pub grace: Duration,
    /// Repetitions of a request that fails for a while, such as while a BMC restarts.
    pub retries: Duration,
    /// A BMC may download the whole ISO before it answers InsertMedia.
    pub insert: Duration,
    /// From an image that was taken until its installation is over.
    pub update: Duration,
    /// From an accepted request until it can be seen.
    pub effect: Duration,
    /// From a graceful shutdown request until force.
    pub shutdown: Duration,
    /// Between two tries of a write that conflicts with what the BMC still does.
    pub conflict: Duration,
    pub poll: Duration,
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets {
            read: Duration::from_secs(30),
            request: Duration::from_secs(60),
            grace: Duration::from_secs(5),
            retries: Duration::from_secs(120),
            insert: Duration::from_secs(30 * 60),
            update: Duration::from_secs(60 * 60),
            effect: Duration::from_secs(120),
            shutdown: Duration::from_secs(30),
            conflict: Duration::from_secs(5),
            poll: Duration::from_secs(1),
        }
    }
}

/// One BMC, logged in.
pub struct Bmc {
    client: reqwest::Client,
    pub(crate) base: Url,
    pub(crate) auth: Mutex<Auth>,
    /// Where sessions are opened.
    pub(crate) sessions: String,
    pub(crate) username: String,
    pub(crate) password: Secret,
    shown: Shown,
    transcript: std::sync::Mutex<Transcript>,
    /// What is taken out of the BMC's words.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) seen: Seen,
    /// A change whose effect was not read back yet.
    unsettled: AtomicBool,
    /// The credentials were refused: they are not sent again.
    pub(crate) refused: AtomicBool,
    pub(crate) profile: Option<Profile>,
    pub(crate) budgets: Budgets,
}

impl Bmc {
    /// Logs in: one session, or Basic where the BMC has no sessions. A refused login is not repeated.
    pub async fn connect(endpoint: &Endpoint, budgets: Budgets) -> Result<Bmc, Error> {
        let (client, shown) = tls::trusting(&endpoint.trust, Keys::Usual)?;
        let secrets = Arc::new(Secrets::of_login(&endpoint.username, endpoint.password.text()));
        let mut bmc = Bmc {
            client,
            base: endpoint.url.clone(),
            auth: Mutex::new(Auth::None),
            sessions: SESSIONS.to_owned(),
            username: endpoint.username.clone(),
            password: endpoint.password.clone(),
            shown,
            transcript: std::sync::Mutex::new(Transcript::without(secrets.clone())),
            secrets,
            seen: Seen::default(),
            unsettled: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            profile: endpoint.profile,
            budgets,
        };
        let root = match bmc.get("/redfish/v1/").await {
            Err(Error::CertificateUnusable { .. }) if bmc.shown.last().is_weak => {
                (bmc.client, bmc.shown) = tls::trusting(&endpoint.trust, Keys::Weak)?;
                bmc.get("/redfish/v1/").await?.body
            }
            root => root?.body,
        };
        let sessions = root["Links"]["Sessions"]["@odata.id"].as_str();
        if let Some(sessions) = sessions {
            bmc.sessions = sessions.to_owned();
        }
        // DSP0266 demands the link where there are sessions. sushy-tools has none, and answers 401 to
        // a login: as if the credentials were wrong.
        if sessions.is_none() && root["SessionService"].is_null() {
            *bmc.auth.lock().await = Auth::Basic;
        } else {
            bmc.log_in().await?;
        }
        Ok(bmc)
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
            let has_session = matches!(&*self.auth.lock().await, Auth::Session { .. });
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
            let url = self.same_authority(path)?;
            // With its length told: small web servers of BMCs take no chunked body.
            let request = self
                .credentials()
                .await?
                .put(self.client.post(url.clone()))
                .timeout(self.budgets.insert)
                .header(header::CONTENT_TYPE, content_type)
                .header(header::CONTENT_LENGTH, length)
                .body(body);
            let response = self.send(request, &what).await?;
            // What went out as a stream is gone.
            let response = match links::redirect(&Method::POST, &url, &response) {
                Redirect::None => response,
                Redirect::To(_) => {
                    let why = "a redirect, which an upload does not follow";
                    return Err(self.redirected(&what, &response, why));
                }
                Redirect::Refused(why) => return Err(self.redirected(&what, &response, &why)),
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
        self.refused.load(Ordering::SeqCst)
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
        let credentials = self.credentials().await?;
        let url = self.same_authority(path)?;
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
        let response = self.travel(&what, method.clone(), url, budget, finish).await?;
        self.judged(&method, &what, response).await
    }

    async fn judged(
        &self,
        method: &Method,
        what: &str,
        response: Response,
    ) -> Result<Answer, Error> {
        if response.status().is_success() {
            return self.answer(method, what, response).await;
        }
        // Of a session it says that the BMC has ended it.
        let error = self.refused(what, response).await.of_credentials(&[401]);
        let is_basic = matches!(&*self.auth.lock().await, Auth::Basic);
        if is_basic && matches!(error, Error::Unauthorized { .. }) {
            self.refused.store(true, Ordering::SeqCst);
        }
        Err(error)
    }

    /// A request, and after it where the BMC redirects it to, within its own authority.
    pub(crate) async fn travel(
        &self,
        what: &str,
        method: Method,
        mut url: Url,
        budget: Duration,
        finish: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let deadline = Instant::now() + budget;
        let mut redirects = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let request = finish(self.client.request(method.clone(), url.clone())).timeout(left);
            let response = self.send(request, what).await?;
            let refused = match links::redirect(&method, &url, &response) {
                Redirect::None => return Ok(response),
                Redirect::To(next) if redirects < links::REDIRECTS_MAX => {
                    (url, redirects) = (next, redirects + 1);
                    continue;
                }
                Redirect::To(_) => format!("more than {} redirects", links::REDIRECTS_MAX),
                Redirect::Refused(why) => why,
            };
            return Err(self.redirected(what, &response, &refused));
        }
    }

    fn redirected(&self, what: &str, response: &Response, why: &str) -> Error {
        let (status, detail) = (response.status().as_u16(), self.foreign(why));
        let what = what.into();
        Error::Status { what, status, detail, cause: None, body: None, retry_after: None }
    }

    /// A link as a URL: never to another host, whatever the BMC says.
    pub(crate) fn same_authority(&self, link: &str) -> Result<Url, Error> {
        links::within(&self.base, link)
            .map_err(|why| Error::BadAnswer { what: "a link of the BMC".into(), why: why.into() })
    }

    /// What a refusal says of itself (`refusal`).
    pub(crate) async fn refused(&self, what: &str, response: Response) -> Error {
        let status = response.status().as_u16();
        let retry_after = retry_after(&response);
        let read = match bounded(what, response, self.budgets.grace).await {
            Ok(bytes) => refusal::read(&bytes, &self.secrets),
            Err(_) => Refusal::default(),
        };
        let Refusal { words: detail, cause, body } = read;
        Error::Status { what: what.into(), status, detail, cause, body, retry_after }
    }

    /// The BMC's words, bounded and without what opens it.
    pub(crate) fn foreign(&self, text: &str) -> String {
        foreign(text, &self.secrets)
    }

    async fn send(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Response, Error> {
        request.send().await.map_err(|source| {
            let is_pinned = self.shown.last().hash.is_some();
            tls::failure(what, source, is_pinned)
        })
    }
}
