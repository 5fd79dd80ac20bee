// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller's URL, the proxy on the way to it, and explanations when it cannot be reached.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{anyhow, ensure};
use rustls::{AlertDescription, CertificateError};
use ureq::Proxy;
use ureq::http::Uri;

/// The environment variables that set a proxy, in the order in which `ureq` reads them.
const PROXY_VARIABLES: [&str; 6] =
    ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

/// The controller's URL, checked.
pub fn base(text: &str) -> anyhow::Result<Uri> {
    let text = text.trim();
    let uri: Option<Uri> = text.parse().ok();
    let Some((uri, authority)) = uri.and_then(|uri| Some((uri.clone(), uri.authority()?.clone())))
    else {
        return Err(anyhow!(
            "--controller {text:?} is no URL; write one such as https://192.0.2.5:8443"
        ));
    };
    ensure!(
        !authority.as_str().contains('@'),
        "--controller has a user name in it; give the token by --token-file"
    );
    match uri.scheme_str() {
        Some("http" | "https") => {}
        None => {
            return Err(anyhow!("--controller {text} has no scheme; write https://{authority}"));
        }
        Some(scheme) => {
            return Err(anyhow!(
                "--controller {text} is {scheme}, not HTTP; write https://{authority}"
            ));
        }
    }
    ensure!(
        matches!(uri.path(), "" | "/") && uri.query().is_none(),
        "--controller {text} has a path; write scheme, host and port only: {}://{authority}",
        uri.scheme_str().unwrap_or("https")
    );
    Ok(uri)
}

/// The settings that explain a failure.
#[derive(Debug, Clone)]
pub struct Way {
    pub base: Uri,
    /// The CA that was given.
    pub ca: Option<PathBuf>,
    pub proxy: Option<Proxy>,
}

impl Way {
    pub fn new(base: Uri, ca: Option<PathBuf>) -> Way {
        // The loopback of a proxy is not ours, and `lab up` must work with a proxy configured.
        let proxy = match is_loopback(&base) {
            true => None,
            false => Proxy::try_from_env().filter(|proxy| !proxy.is_no_proxy(&base)),
        };
        Way { base, ca, proxy }
    }

    /// Explains why a request got no response, and what to do.
    pub fn explain(&self, error: &ureq::Error) -> String {
        let base = self.base.to_string();
        let mut why = format!("{}: {error}", base.trim_end_matches('/'));
        if let Some(cure) = self.cure(error) {
            why.push_str(&format!("; {cure}"));
        }
        if let Some(proxy) = &self.proxy {
            let variable = PROXY_VARIABLES.iter().find(|name| std::env::var_os(name).is_some());
            why.push_str(&format!(
                "; this went through the proxy {}:{} of {}: if the controller is reached without it, add {} to \
                 NO_PROXY",
                proxy.host(),
                proxy.port(),
                variable.copied().unwrap_or("the environment"),
                self.base.host().unwrap_or_default(),
            ));
        }
        why
    }

    fn cure(&self, error: &ureq::Error) -> Option<String> {
        let authority = self.base.authority()?;
        let is_tls = self.base.scheme_str() == Some("https");
        let cure = match error {
            ureq::Error::HostNotFound => {
                format!("no address is known for {}; check --controller", authority.host())
            }
            // A TLS server responds to plain HTTP with an alert, whose bytes are not HTTP.
            ureq::Error::Protocol(_) if !is_tls => {
                format!("what listens there speaks no plain HTTP; write https://{authority}")
            }
            ureq::Error::Protocol(_) => {
                "what listens there is no Shoal controller; check --controller".to_owned()
            }
            ureq::Error::Timeout(_) => {
                "nobody answered; check the address and any firewall between".to_owned()
            }
            ureq::Error::Io(io) => return self.io_cure(io),
            ureq::Error::Rustls(tls) => return self.tls_cure(tls),
            _ => return None,
        };
        Some(cure)
    }

    fn io_cure(&self, error: &io::Error) -> Option<String> {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return self.tls_cure(tls);
        }
        let authority = self.base.authority()?;
        match error.kind() {
            ErrorKind::ConnectionRefused => Some(format!(
                "nothing listens at {authority}; is the controller up, and is this its --listen address?"
            )),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                if self.base.scheme_str() == Some("http") =>
            {
                Some(format!("if it speaks TLS, write https://{authority}"))
            }
            _ => None,
        }
    }

    fn tls_cure(&self, error: &rustls::Error) -> Option<String> {
        let authority = self.base.authority()?;
        let cure = match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => match &self.ca {
                None => {
                    "its certificate is by none of this system's authorities; give --ca FILE with \
                         tls/ca.pem of the controller's data directory"
                        .to_owned()
                }
                Some(file) => format!(
                    "its certificate is not by the CA in {}: what listens there is another controller, or has a \
                     new CA or a certificate of its own; give --ca the file of its CA",
                    file.display()
                ),
            },
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => format!(
                "its certificate is not for {}; use a host that it is for: localhost, or the one of the controller's \
                 --listen or --node-url",
                authority.host()
            ),
            rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "its certificate has expired, or the clock here is wrong".to_owned(),
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => "its certificate is not valid yet, or the clock here is wrong".to_owned(),
            rustls::Error::InvalidMessage(_) => format!(
                "what listens there speaks no TLS; if the controller serves plain HTTP, write http://{authority}"
            ),
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown,
            ) => "the controller refused the client's certificate; check --client-cert".to_owned(),
            _ => return None,
        };
        Some(cure)
    }
}

/// Returns whether the host is this computer (RFC 6761, section 6.3; RFC 5735; RFC 4291, section 2.5.3).
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let name = host.trim_end_matches('.');
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_told_with_the_right_one() {
        for (text, expected) in [
            ("192.0.2.5:8443", "has no scheme; write https://192.0.2.5:8443"),
            ("controller.example", "has no scheme; write https://controller.example"),
            ("", "is no URL; write one such as https://192.0.2.5:8443"),
            ("https://", "is no URL"),
            ("https://a b", "is no URL"),
            ("/var/lib/shoal", "is no URL"),
            ("ftp://c:1", "is ftp, not HTTP; write https://c:1"),
            ("https://c:1/api/v1", "write scheme, host and port only: https://c:1"),
            ("http://c?x", "write scheme, host and port only: http://c"),
            ("https://user:secret@c", "give the token by --token-file"),
        ] {
            let error = base(text).expect_err(text).to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
        for good in ["https://c:1", "http://[::1]:80/", " https://192.0.2.5 \n"] {
            base(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
    }

    #[test]
    fn a_failure_of_tls_is_told_with_its_cure() {
        let tls = |ca: Option<&str>, error: rustls::Error| {
            let way =
                Way { base: "https://c:1".parse().unwrap(), ca: ca.map(Into::into), proxy: None };
            way.explain(&ureq::Error::Io(io::Error::new(ErrorKind::InvalidData, error)))
        };
        let wrong = |error| rustls::Error::InvalidCertificate(error);
        for (told, expected) in [
            (tls(None, wrong(CertificateError::UnknownIssuer)), "give --ca FILE with tls/ca.pem"),
            (
                tls(Some("/my/ca"), wrong(CertificateError::UnknownIssuer)),
                "not by the CA in /my/ca",
            ),
            (
                tls(None, wrong(CertificateError::NotValidForName)),
                "is not for c; use a host that it is for",
            ),
            (
                tls(None, wrong(CertificateError::Expired)),
                "has expired, or the clock here is wrong",
            ),
            (tls(None, wrong(CertificateError::NotValidYet)), "the clock here is wrong"),
            (
                tls(
                    None,
                    rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                ),
                "write http://c:1",
            ),
            (
                tls(None, rustls::Error::AlertReceived(AlertDescription::UnknownCA)),
                "check --client-cert",
            ),
        ] {
            assert!(told.starts_with("https://c:1: ") && told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_proxy_is_named_in_errors_and_not_used_for_this_computer() {
        let proxy = Proxy::new("http://user:secret@proxy.example:3128").unwrap();
        let base: Uri = "https://c:1".parse().unwrap();
        let way = Way { base, ca: None, proxy: Some(proxy) };
        let told = way.explain(&ureq::Error::HostNotFound);
        assert!(told.contains("through the proxy proxy.example:3128 of "), "{told}");
        assert!(told.contains("add c to NO_PROXY") && !told.contains("secret"), "{told}");
        for (uri, expected) in [
            ("https://127.0.0.1:1", true),
            ("https://127.9.9.9", true),
            ("https://[::1]:1", true),
            ("https://[::ffff:127.0.0.1]", true),
            ("http://LocalHost", true),
            ("http://lab.localhost.:1", true),
            ("https://192.0.2.1", false),
            ("https://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
