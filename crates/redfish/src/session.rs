// SPDX-License-Identifier: AGPL-3.0-or-later
//! Login and logout at a BMC. A BMC has few sessions, some have four: a session that is not ended can block the next
//! login.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, header};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

use crate::answer::Body;
use crate::budgets::Budgets;
use crate::cause::Cause;
use crate::error::Error;
use crate::patience::{Patience, Repeat};
use crate::secrets::Secret;
use crate::transport::Transport;
use crate::{links, refusal};

/// The collection of sessions on a BMC that does not link it (DSP0266, 13.3.4).
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
/// Time limit for ending a session. It is short because nothing depends on the result.
const END_MAX: Duration = Duration::from_secs(10);

/// The login to one BMC.
pub(crate) struct Session {
    username: String,
    password: Secret,
    /// The path where sessions are opened.
    place: String,
    auth: Mutex<Auth>,
    /// The credentials were refused and are not sent again.
    is_refused: AtomicBool,
}

/// How requests are authorized.
enum Auth {
    Session {
        token: Zeroizing<String>,
        /// URLs at which the session can be ended, the most likely one first.
        places: Vec<Url>,
    },
    Basic,
    /// Before the login.
    None,
}

/// The credentials of one request.
pub(crate) enum Credentials<'a> {
    Token(Zeroizing<String>),
    Basic(&'a Session),
    None,
}

impl Credentials<'_> {
    pub fn put(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Credentials::Token(token) => request.header("x-auth-token", token.as_str()),
            Credentials::Basic(login) => {
                request.basic_auth(&login.username, Some(login.password.text()))
            }
            Credentials::None => request,
        }
    }
}

impl Session {
    /// Before the login.
    pub fn new(username: &str, password: &Secret) -> Session {
        Session {
            username: username.to_owned(),
            password: password.clone(),
            place: SESSIONS.to_owned(),
            auth: Mutex::new(Auth::None),
            is_refused: AtomicBool::new(false),
        }
    }

    pub fn username(&self) -> &str {
        &self.username
    }

    /// Sets the path of the BMC's sessions.
    pub fn set_place(&mut self, place: &str) {
        place.clone_into(&mut self.place);
    }

    /// Sends the credentials with each request, because the BMC has no sessions.
    pub async fn use_basic(&self) {
        *self.auth.lock().await = Auth::Basic;
    }

    pub async fn is_open(&self) -> bool {
        matches!(&*self.auth.lock().await, Auth::Session { .. })
    }

    pub async fn is_basic(&self) -> bool {
        matches!(&*self.auth.lock().await, Auth::Basic)
    }

    /// Records that the BMC refused the credentials.
    pub fn refuse(&self) {
        self.is_refused.store(true, Ordering::SeqCst);
    }

    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::SeqCst)
    }

    pub async fn credentials(&self) -> Result<Credentials<'_>, Error> {
        match &*self.auth.lock().await {
            Auth::Session { token, .. } => Ok(Credentials::Token(token.clone())),
            Auth::Basic if self.is_refused() => Err(refused_before()),
            Auth::Basic => Ok(Credentials::Basic(self)),
            Auth::None => Ok(Credentials::None),
        }
    }

    pub async fn log_in(&self, transport: &Transport, budgets: &Budgets) -> Result<(), Error> {
        // A session that the BMC reports as ended may still be open, and would use a place beside the new one.
        self.close(transport).await;
        let mut patience = Patience::new(Repeat::Freely, budgets);
        let auth = loop {
            match self.log_in_once(transport, budgets).await {
                Ok(auth) => break auth,
                Err(error) => patience.spend_on(error).await?,
            }
        };
        *self.auth.lock().await = auth;
        Ok(())
    }

    async fn log_in_once(&self, transport: &Transport, budgets: &Budgets) -> Result<Auth, Error> {
        if self.is_refused() {
            return Err(refused_before());
        }
        let what = format!("POST {}", self.place);
        let body = json!({"UserName": self.username, "Password": self.password.text()});
        let url = transport.same_authority(&self.place)?;
        let budget = budgets.request;
        let with_login = |request: RequestBuilder| request.json(&body);
        let response = transport.travel(&what, Method::POST, url, budget, with_login).await?;
        match response.status().as_u16() {
            200..=299 => self.opened(transport, &what, response).await,
            404 | 405 | 501 => Ok(Auth::Basic),
            _ => {
                // Several BMCs also return these when no session is free.
                let error =
                    transport.refused(&what, response).await.of_credentials(&[400, 401, 403]);
                if matches!(error, Error::Unauthorized { .. }) {
                    self.refuse();
                }
                Err(error)
            }
        }
    }

    /// Reads the response to a login: a session, or nothing that can be used as one.
    async fn opened(
        &self,
        transport: &Transport,
        what: &str,
        response: Response,
    ) -> Result<Auth, Error> {
        let (asked, status) = (response.url().clone(), response.status().as_u16());
        let text = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (token, location) = (text("x-auth-token"), text(header::LOCATION.as_str()));
        // The body only helps to find the session again. The login counts even without it.
        let body = transport.body(what, response).await.map(Body::json).unwrap_or_default();
        let places = places(&asked, location.as_deref(), &body);
        if let Some(token) = &token {
            transport.secrets.add(token);
        }
        // Such a session may only change the password (DSP0266, "Password change required handling").
        let (detail, cause) = refusal::of_document(&body, &transport.secrets);
        if cause == Some(Cause::PasswordChange) {
            let login = match token {
                Some(token) => Credentials::Token(token.into()),
                None => Credentials::Basic(self),
            };
            end_session(transport, &places, &login).await;
            let (what, body) = (what.into(), None);
            return Err(Error::Status { what, status, detail, cause, body, retry_after: None });
        }
        match token {
            Some(token) => Ok(Auth::Session { token: token.into(), places }),
            None => {
                end_session(transport, &places, &Credentials::Basic(self)).await;
                Ok(Auth::Basic)
            }
        }
    }

    /// Ends the session, if there is one.
    pub async fn close(&self, transport: &Transport) {
        let auth = std::mem::replace(&mut *self.auth.lock().await, Auth::None);
        let Auth::Session { token, places } = auth else { return };
        end_session(transport, &places, &Credentials::Token(token)).await;
    }
}

/// Deletes a session at the first URL where the BMC has it.
async fn end_session(transport: &Transport, places: &[Url], credentials: &Credentials<'_>) {
    let login = |request| credentials.put(request);
    for place in places {
        let what = format!("DELETE {}", place.path());
        match transport.travel(&what, Method::DELETE, place.clone(), END_MAX, login).await {
            // The session is at another URL.
            Ok(response) if !response.status().is_success() => {}
            // A BMC that does not respond will not respond at the next URL either.
            Ok(_) | Err(Error::Unreachable { .. }) => return,
            Err(_) => {}
        }
    }
}

fn refused_before() -> Error {
    Error::Unauthorized { detail: String::new() }
}

/// Where a session that was opened at `asked` may be: by the response's `Location`, which DSP0266 13.3.4 requires and
/// some BMCs omit, and by its body.
fn places(asked: &Url, location: Option<&str>, body: &Value) -> Vec<Url> {
    let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
    let by_id = text("Id").map(|id| links::below(asked.path(), id));
    let links = [location.map(str::to_owned), text("@odata.id").map(str::to_owned), by_id];
    let mut places: Vec<Url> = Vec::new();
    for link in links.into_iter().flatten() {
        // A bare name is relative to the collection, whose path has no final slash.
        let is_bare = !link.contains('/');
        let link = if is_bare { links::below(asked.path(), &link) } else { link };
        let place = links::at_home(asked, &link);
        // Some BMCs return the collection, where no session can be deleted.
        let is_member = |url: &Url| !links::is_same(url.path(), asked.path());
        places.extend(place.filter(|url| is_member(url) && !places.contains(url)));
    }
    places
}
