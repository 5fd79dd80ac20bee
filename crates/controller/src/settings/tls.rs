// SPDX-License-Identifier: AGPL-3.0-or-later
//! Settings of the certificates that the listeners present.

use std::path::PathBuf;

use rustls::pki_types::ServerName;

#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsArgs {
    /// A certificate for the names by which people and programs reach this controller, and those of its issuers,
    /// as PEM, the server's own first; read again at SIGHUP. Clients that ask for another name, or connect to an
    /// address that it is not for, get the certificate of this controller's own CA as before.
    #[arg(
        long,
        env = "SHOAL_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "dangerously_plain_http"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, as PEM, without a passphrase.
    #[arg(long, env = "SHOAL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// A further DNS name or address for the certificate that this controller makes, such as shoal.example or
    /// 192.0.2.5; can be given several times. Addresses of the listeners and hosts of the URLs are in it anyway.
    #[arg(
        long = "tls-name",
        value_name = "NAME",
        value_parser = name,
        conflicts_with = "dangerously_plain_http"
    )]
    pub tls_names: Vec<String>,
}

/// A DNS name, with or without a leading `*.`, or an IP address.
fn name(text: &str) -> Result<String, String> {
    let bare = text.trim_matches(['[', ']']);
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    let host = text.strip_prefix("*.").unwrap_or(text);
    match ServerName::try_from(host) {
        Ok(ServerName::DnsName(_)) => Ok(text.to_ascii_lowercase()),
        _ => {
            Err("write a DNS name or an IP address alone, without https:// and without a port"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_certificate_is_a_host_and_nothing_more() {
        for (text, expected) in [
            ("shoal.example", "shoal.example"),
            ("Shoal.Example", "shoal.example"),
            ("*.lab.example", "*.lab.example"),
            ("192.0.2.5", "192.0.2.5"),
            ("2001:db8::5", "2001:db8::5"),
            ("[2001:db8::5]", "2001:db8::5"),
        ] {
            assert_eq!(name(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in
            ["", "*", "a b", "https://shoal.example", "shoal.example:8443", "192.0.2.5:1", "*.*.x"]
        {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
