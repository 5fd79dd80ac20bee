// SPDX-License-Identifier: AGPL-3.0-or-later
//! Errors of a registry: messages that say what to do, and whether and how long to retry.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, Instant};

use rustls::CertificateError;

const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

pub type Response = ureq::http::Response<ureq::Body>;

/// A failure, by whether a retry may help.
pub enum Failure {
    Lost(anyhow::Error),
    Final(anyhow::Error),
}

/// A period without progress.
pub struct Outage {
    max: Duration,
    since: Option<Instant>,
    backoff: Duration,
}

impl Outage {
    /// Gives up after `max` without progress.
    pub fn new(max: Duration) -> Outage {
        Outage { max, since: None, backoff: Duration::ZERO }
    }

    /// Waits before the next attempt, or gives up with this attempt's error.
    pub fn wait(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.max {
            return Err(error.context(format!("given up after {} s", self.max.as_secs())));
        }
        eprintln!("{error:#}; trying again");
        self.backoff = (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
        std::thread::sleep(self.backoff);
        Ok(())
    }
}

/// Returns the response, if its status is one of the `expected`.
pub fn checked(
    response: Result<Response, ureq::Error>,
    url: &str,
    expected: &[u16],
) -> Result<Response, Failure> {
    let response = response.map_err(|error| unanswered(error, url))?;
    let status = response.status().as_u16();
    if expected.contains(&status) {
        return Ok(response);
    }
    let error = anyhow::anyhow!("GET {url} answered {status}{}", advice(status));
    if status == 429 || status >= 500 {
        Err(Failure::Lost(error))
    } else {
        Err(Failure::Final(error))
    }
}

/// The failure of a request without a response. A wrong name or an untrusted certificate is final. Problems of the
/// network are temporary.
pub fn unanswered(error: ureq::Error, url: &str) -> Failure {
    let may_pass = may_pass(&error);
    let cause = tls_cause(&error);
    let mut error = anyhow::Error::new(error);
    if let Some(cause) = cause {
        error = error.context(cause);
    }
    let error = error.context(format!("GET {url}"));
    if may_pass { Failure::Lost(error) } else { Failure::Final(error) }
}

/// What a status means for a user who pulls an image.
fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => {
            ": the registry does not give this image to a client without an account, and machines have none; \
             make the repository public or push the image to the controller's registry"
        }
        404 => ": the registry has no such image, or shows it only to clients with an account",
        429 => ": the registry limits requests from clients without an account",
        _ => "",
    }
}

fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => true,
        // Everything else is about the request, not about the connection.
        _ => false,
    }
}

/// The problem with the registry's TLS, and how to fix it.
fn tls_cause(error: &ureq::Error) -> Option<&'static str> {
    let tls = match error {
        ureq::Error::Rustls(tls) => tls,
        ureq::Error::Io(error) => in_chain(error.get_ref()?)?,
        _ => return None,
    };
    Some(match tls {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the registry's certificate is not signed by a public authority, and images of other \
             registries are not read; push the image to the controller's registry"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the registry's certificate is not valid yet by this machine's clock; set its clock",
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the registry's certificate has expired, by this machine's clock",
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the registry's certificate is for another host name",
        rustls::Error::InvalidMessage(_) => "the registry does not speak TLS at this port",
        _ => return None,
    })
}

fn in_chain<'a>(first: &'a (dyn StdError + Send + Sync + 'static)) -> Option<&'a rustls::Error> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(first);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use rustls::Error as Tls;

    use super::*;

    fn shown(failure: Failure) -> String {
        match failure {
            Failure::Lost(error) => format!("lost: {error:#}"),
            Failure::Final(error) => format!("final: {error:#}"),
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_named_and_final() {
        for (error, expected) in [
            (CertificateError::UnknownIssuer, "is not signed by a public authority"),
            (CertificateError::NotValidYet, "not valid yet by this machine's clock"),
            (CertificateError::Expired, "has expired"),
            (CertificateError::NotValidForName, "for another host name"),
        ] {
            let tls = Tls::InvalidCertificate(error);
            let io = io::Error::new(io::ErrorKind::InvalidData, tls.clone());
            for error in [ureq::Error::Rustls(tls), ureq::Error::Io(io)] {
                let shown = shown(unanswered(error, "https://h/v2/a/manifests/b"));
                assert!(shown.starts_with("final: GET https://h"), "{shown}");
                assert!(shown.contains(expected), "{expected:?} in {shown}");
            }
        }
    }

    /// Uses a real connection, because the error then has the form that it has in practice.
    #[test]
    fn a_port_without_tls_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 16]).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::Specific(std::sync::Arc::new(Vec::new())))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).build().into();
        let url = format!("https://{place}/v2/");
        let shown = shown(unanswered(agent.get(&url).call().unwrap_err(), &url));
        assert!(shown.contains("final: ") && shown.contains("does not speak TLS"), "{shown}");
    }
}
