// SPDX-License-Identifier: AGPL-3.0-or-later
//! Programs and people who show a certificate of a CA that the operator names. Which role it gives hangs on
//! its subject alternative names (RFC 5280, section 4.2.1.6), DNS names or URIs such as SPIFFE ids; common
//! names are free text and count for nothing.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use api::access::Role;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::settings::role_given;

/// Of a certificate's names in the audit log.
const NAME_CHARS_MAX: usize = 128;

/// Which certificates are taken.
#[derive(Debug, Clone)]
pub struct Settings {
    /// PEM.
    pub ca_file: PathBuf,
    pub roles: Vec<(Role, Pattern)>,
}

/// A name of a certificate, whole or with one `*` at its end or its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Is(String),
    BeginsWith(String),
    EndsWith(String),
}

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        match self {
            Pattern::Is(whole) => name == whole,
            Pattern::BeginsWith(begin) => name.len() > begin.len() && name.starts_with(begin),
            Pattern::EndsWith(end) => name.len() > end.len() && name.ends_with(end),
        }
    }
}

/// `ROLE=NAME`.
pub fn parse_role(text: &str) -> Result<(Role, Pattern), String> {
    let form = "write ROLE=NAME, such as operator=ci.example.org";
    let (role, name) = role_given(text, form)?;
    let pattern = match (name.strip_prefix('*'), name.strip_suffix('*')) {
        (None, None) => Pattern::Is(name.to_owned()),
        (None, Some(begin)) => Pattern::BeginsWith(begin.to_owned()),
        (Some(end), None) => Pattern::EndsWith(end.to_owned()),
        (Some(_), Some(_)) => return Err("a name has one * at most".into()),
    };
    let (Pattern::Is(text) | Pattern::BeginsWith(text) | Pattern::EndsWith(text)) = &pattern;
    if text.is_empty() || text.contains('*') {
        return Err("a * stands at the end or the beginning of a name, not for all of it".into());
    }
    Ok((role, pattern))
}

/// What is asked of those who connect: a certificate of these CAs, or none.
pub fn verifier(settings: &Settings) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let path = settings.ca_file.display();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&settings.ca_file)
        .with_context(|| format!("read the clients' CA in {path}"))?
    {
        let certificate = certificate.with_context(|| format!("read the clients' CA in {path}"))?;
        roots.add(certificate).with_context(|| format!("{path} has a CA that cannot be used"))?;
    }
    ensure!(!roots.is_empty(), "{path} holds no certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    Ok(builder.allow_unauthenticated().build()?)
}

/// Who shows this certificate, which the TLS handshake has verified, and the highest role that a name of it
/// gives.
pub fn identify(settings: &Settings, certificate: &[u8]) -> (String, Option<Role>) {
    let certificate = CertificateDer::from(certificate);
    let Ok(parsed) = webpki::EndEntityCert::try_from(&certificate) else {
        return ("certificate".into(), None);
    };
    let names: Vec<&str> = parsed.valid_uri_names().chain(parsed.valid_dns_names()).collect();
    let gives = |pattern: &Pattern| names.iter().any(|name| pattern.fits(name));
    let given = settings.roles.iter().filter(|(_, pattern)| gives(pattern));
    let role = given.map(|(role, _)| *role).max();
    let who = format!("certificate {}", names.join(" "));
    (who.trim_end().chars().take(NAME_CHARS_MAX).collect(), role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_hangs_on_whole_names_or_on_what_comes_before_or_after_a_star() {
        let fits =
            |text: &str, name: &str| parse_role(&format!("admin={text}")).unwrap().1.fits(name);
        for (text, name, expected) in [
            ("ci.example.org", "ci.example.org", true),
            ("ci.example.org", "xci.example.org", false),
            ("*.example.org", "ci.example.org", true),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "ci.example.org.evil", false),
            ("spiffe://example.org/ops/*", "spiffe://example.org/ops/ada", true),
            ("spiffe://example.org/ops/*", "spiffe://example.org/ops/", false),
            ("spiffe://example.org/ops/*", "spiffe://example.org/op", false),
        ] {
            assert_eq!(fits(text, name), expected, "{text} {name}");
        }
        for bad in ["admin=*", "admin=", "admin", "root=x", "admin=*x*", "admin=a*b", "publisher=x"]
        {
            assert!(parse_role(bad).is_err(), "{bad}");
        }
    }
}
