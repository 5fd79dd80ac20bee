// SPDX-License-Identifier: AGPL-3.0-or-later
//! Single requests to one BMC, without the login: the accepted certificate, redirects, the reading of refusals, and
//! the removal of secrets from the BMC's text.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use tokio::time::Instant;
use url::Url;

use crate::answer::{Answer, Body, bounded, retry_after};
use crate::error::{Error, foreign};
use crate::links::{self, Redirect};
use crate::refusal::{self, Refusal};
use crate::secrets::Secrets;
use crate::tls::{self, Keys, Shown, Trust};

pub(crate) struct Transport {
    client: reqwest::Client,
    pub base: Url,
    shown: Shown,
    /// Secrets that are removed from the BMC's text.
    pub secrets: Arc<Secrets>,
    /// After this time, a response below the minimum rate is aborted.
    grace: Duration,
}

impl Transport {
    pub fn new(
        base: &Url,
        trust: &Trust,
        secrets: Arc<Secrets>,
        grace: Duration,
    ) -> Result<Transport, Error> {
        let (client, shown) = tls::trusting(trust, Keys::Usual)?;
        Ok(Transport { client, base: base.clone(), shown, secrets, grace })
    }

    /// Whether the certificate that was refused has a key that [`Transport::accept_weak_keys`] accepts.
    pub fn was_shown_a_weak_key(&self) -> bool {
        self.shown.last().is_weak
    }

    pub fn accept_weak_keys(&mut self, trust: &Trust) -> Result<(), Error> {
        (self.client, self.shown) = tls::trusting(trust, Keys::Weak)?;
        Ok(())
    }

    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.client.request(method, url)
    }

    /// Reads a 2xx response.
    pub async fn answer(
        &self,
        method: &Method,
        what: &str,
        response: Response,
    ) -> Result<Answer, Error> {
        Answer::of(method, what, response, self.grace, &self.secrets).await
    }

    pub async fn body(&self, what: &str, response: Response) -> Result<Body, Error> {
        Body::of(what, response, self.grace, &self.secrets).await
    }

    /// Sends a request and follows redirects within the BMC's own authority.
    pub async fn travel(
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
            let request = finish(self.request(method.clone(), url.clone())).timeout(left);
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

    /// The error for a redirect that is not followed.
    pub fn redirected(&self, what: &str, response: &Response, why: &str) -> Error {
        let (status, detail) = (response.status().as_u16(), self.foreign(why));
        let what = what.into();
        Error::Status { what, status, detail, cause: None, body: None, retry_after: None }
    }

    /// A link as a URL. Fails if it leads to another host.
    pub fn same_authority(&self, link: &str) -> Result<Url, Error> {
        links::within(&self.base, link)
            .map_err(|why| Error::BadAnswer { what: "a link of the BMC".into(), why: why.into() })
    }

    /// Reads an error response (`refusal`).
    pub async fn refused(&self, what: &str, response: Response) -> Error {
        let status = response.status().as_u16();
        let retry_after = retry_after(&response);
        let read = match bounded(what, response, self.grace).await {
            Ok(bytes) => refusal::read(&bytes, &self.secrets),
            Err(_) => Refusal::default(),
        };
        let Refusal { words: detail, cause, body } = read;
        Error::Status { what: what.into(), status, detail, cause, body, retry_after }
    }

    /// Text from the BMC, limited in length and without secrets.
    pub fn foreign(&self, text: &str) -> String {
        foreign(text, &self.secrets)
    }

    pub async fn send(&self, request: RequestBuilder, what: &str) -> Result<Response, Error> {
        request.send().await.map_err(|source| {
            let is_pinned = self.shown.last().hash.is_some();
            tls::failure(what, source, is_pinned)
        })
    }
}
