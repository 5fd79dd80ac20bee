// SPDX-License-Identifier: AGPL-3.0-or-later
//! The login to a BMC, and its end. A BMC has few sessions, some have four: one that is not ended keeps
//! the next visit out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, header};
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use crate::answer::Body;
use crate::cause::Cause;
use crate::patience::{Patience, Repeat};
use crate::{Bmc, Error, links, refusal};

/// Where sessions are opened on a BMC that does not say (DSP0266, 13.3.4).
pub(crate) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
/// For the end of a session: nobody waits for what comes after it.
const END_MAX: Duration = Duration::from_secs(10);

/// By what requests are authorized.
pub(crate) enum Auth {
    Session {
        token: Zeroizing<String>,
        /// Where the session can be ended, the most likely place first.
        places: Vec<Url>,
    },
    Basic,
    /// Before the login.
    None,
}

/// What goes with one request.
pub(crate) enum Credentials<'a> {
    Token(Zeroizing<String>),
    Basic(&'a Bmc),
    None,
}

impl Credentials<'_> {
    pub fn put(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Credentials::Token(token) => request.header("x-auth-token", token.as_str()),
            Credentials::Basic(bmc) => request.basic_auth(&bmc.username, Some(bmc.password.text())),
            Credentials::None => request,
        }
    }
}

impl Bmc {
    pub(crate) async fn credentials(&self) -> Result<Credentials<'_>, Error> {
        match &*self.auth.lock().await {
            Auth::Session { token, .. } => Ok(Credentials::Token(token.clone())),
            Auth::Basic if self.is_refused() => Err(refused_before()),
            Auth::Basic => Ok(Credentials::Basic(self)),
            Auth::None => Ok(Credentials::None),
        }
    }

    pub(crate) async fn log_in(&self) -> Result<(), Error> {
        // A session that the BMC says is over may be open still, and this one would be one more.
        self.close().await;
        let mut patience = Patience::new(Repeat::Freely, &self.budgets);
        let auth = loop {
            match self.log_in_once().await {
                Ok(auth) => break auth,
                Err(error) => patience.spend_on(error).await?,
            }
        };
        *self.auth.lock().await = auth;
        Ok(())
    }

    async fn log_in_once(&self) -> Result<Auth, Error> {
        if self.is_refused() {
            return Err(refused_before());
        }
        let what = format!("POST {}", self.sessions);
        let body = json!({"UserName": self.username, "Password": self.password.text()});
        let url = self.same_authority(&self.sessions)?;
        let budget = self.budgets.request;
        let with_login = |request: RequestBuilder| request.json(&body);
        let response = self.travel(&what, Method::POST, url, budget, with_login).await?;
        match response.status().as_u16() {
            200..=299 => self.opened(&what, response).await,
            404 | 405 | 501 => Ok(Auth::Basic),
            _ => {
                // Several BMCs have these for a full table of sessions, too.
                let error = self.refused(&what, response).await.of_credentials(&[400, 401, 403]);
                if matches!(error, Error::Unauthorized { .. }) {
                    self.refused.store(true, Ordering::SeqCst);
                }
                Err(error)
            }
        }
    }

    /// What a login gave: a session, or nothing that can be used as one.
    async fn opened(&self, what: &str, response: Response) -> Result<Auth, Error> {
        let (asked, status) = (response.url().clone(), response.status().as_u16());
        let text = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (token, location) = (text("x-auth-token"), text(header::LOCATION.as_str()));
        // The body only helps to find the session again; a login is not lost by it.
        let body = self.body_of(what, response).await.map(Body::json).unwrap_or_default();
        let places = places(&asked, location.as_deref(), &body);
        if let Some(token) = &token {
            self.secrets.add(token);
        }
        // Such a session may change the password and nothing else (DSP0266, "Password change required handling").
        let (detail, cause) = refusal::of_document(&body, &self.secrets);
        if cause == Some(Cause::PasswordChange) {
            let login = match token {
                Some(token) => Credentials::Token(token.into()),
                None => Credentials::Basic(self),
            };
            self.end_session(&places, &login).await;
            let (what, body) = (what.into(), None);
            return Err(Error::Status { what, status, detail, cause, body, retry_after: None });
        }
        match token {
            Some(token) => Ok(Auth::Session { token: token.into(), places }),
            None => {
                self.end_session(&places, &Credentials::Basic(self)).await;
                Ok(Auth::Basic)
            }
        }
    }

    /// Ends the session. Failing to end one is not worth an error: the BMC drops an idle session by itself.
    /// May be called twice.
    pub async fn close(&self) {
        let auth = std::mem::replace(&mut *self.auth.lock().await, Auth::None);
        let Auth::Session { token, places } = auth else { return };
        self.end_session(&places, &Credentials::Token(token)).await;
    }

    /// Deletes a session in the first place where the BMC has it.
    async fn end_session(&self, places: &[Url], credentials: &Credentials<'_>) {
        let login = |request| credentials.put(request);
        for place in places {
            let what = format!("DELETE {}", place.path());
            match self.travel(&what, Method::DELETE, place.clone(), END_MAX, login).await {
                // It is somewhere else.
                Ok(response) if !response.status().is_success() => {}
                // A BMC that does not answer does not answer in the next place either.
                Ok(_) | Err(Error::Unreachable { .. }) => return,
                Err(_) => {}
            }
        }
    }
}

fn refused_before() -> Error {
    Error::Unauthorized { detail: String::new() }
}

/// Where a session may be that was opened at `asked`: by the answer's `Location`, which DSP0266 13.3.4
/// demands and some BMCs leave out, and by what its body says.
fn places(asked: &Url, location: Option<&str>, body: &Value) -> Vec<Url> {
    let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
    let by_id = text("Id").map(|id| links::below(asked.path(), id));
    let links = [location.map(str::to_owned), text("@odata.id").map(str::to_owned), by_id];
    let mut places: Vec<Url> = Vec::new();
    for link in links.into_iter().flatten() {
        // Without a leading slash it may mean the collection, whose path has none at its end.
        let is_bare = !link.contains('/');
        let link = if is_bare { links::below(asked.path(), &link) } else { link };
        let place = links::at_home(asked, &link);
        // Some name the collection: there is no session to delete there.
        let is_member = |url: &Url| !links::is_same(url.path(), asked.path());
        places.extend(place.filter(|url| is_member(url) && !places.contains(url)));
    }
    places
}
