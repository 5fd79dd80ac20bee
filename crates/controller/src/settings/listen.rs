// SPDX-License-Identifier: AGPL-3.0-or-later
//! Addresses to listen on, as users write them: an address or a host name, and a port. Names are resolved once, at
//! the start.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::str::FromStr;

use anyhow::{Context, ensure};

/// `192.0.2.5:8443`, `[::]:8443` or `localhost:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Address(SocketAddr),
    Name { host: String, port: u16 },
}

#[derive(Debug, thiserror::Error)]
#[error("write ADDRESS:PORT or NAME:PORT, such as 0.0.0.0:8443, [::]:8443 or localhost:8443")]
pub struct InvalidListen;

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Listen, InvalidListen> {
        if let Ok(address) = text.parse() {
            return Ok(Listen::Address(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidListen)?;
        let port = port.parse().map_err(|_| InvalidListen)?;
        let is_name = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        // Text of digits and dots only was meant as an address.
        let has_letter = host.bytes().any(|byte| byte.is_ascii_alphabetic());
        if !is_name || !has_letter {
            return Err(InvalidListen);
        }
        Ok(Listen::Name { host: host.to_owned(), port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Address(address) => address.fmt(f),
            Listen::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Listen {
    /// The host name, if it is one: the server's certificate is also for this name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Listen::Address(_) => None,
            Listen::Name { host, .. } => Some(host),
        }
    }

    /// Returns every address that it stands for, IPv4 first: many BMCs only support IPv4, and get a URL with the
    /// first address. `option` is named in the error if there is no address.
    pub fn resolve(&self, option: &str) -> anyhow::Result<Vec<SocketAddr>> {
        let (host, port) = match self {
            Listen::Address(address) => return Ok(vec![*address]),
            Listen::Name { host, port } => (host, *port),
        };
        let found = (host.as_str(), port).to_socket_addrs().with_context(|| {
            format!("find the address of {option} {self}; write the address itself")
        })?;
        let found: Vec<SocketAddr> = found.collect();
        let own = own_addresses(&found, is_of_this_host);
        ensure!(
            !own.is_empty(),
            "{option} {self} stands for {found:?}, and this host has none of these addresses; write one that it has, \
             or 0.0.0.0:{port} for all"
        );
        Ok(own)
    }
}

/// Returns the addresses that this host has, each once, IPv4 first. A name may have more: many containers resolve
/// `localhost` to `::1` too, but have no IPv6.
fn own_addresses(found: &[SocketAddr], is_own: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
    let mut own: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !own.contains(address) && is_own(*address) {
            own.push(*address);
        }
    }
    own.sort_by_key(SocketAddr::is_ipv6);
    own
}

/// Whether the kernel lets a socket bind this address. Nothing is sent.
fn is_of_this_host(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_name_with_a_port_is_taken_and_nothing_else() {
        for (text, is_name) in [
            ("192.0.2.5:8443", false),
            ("[::]:8443", false),
            ("[fe80::1%2]:8443", false),
            ("localhost:8443", true),
            ("shoal-1.example.org:443", true),
            ("LOCALHOST:0", true),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.name().is_some(), is_name, "{text}");
            assert_eq!(listen.to_string(), text);
        }
        for bad in [
            "",
            ":8443",
            "*:8443",
            "8443",
            "localhost",
            "localhost:",
            "localhost:65536",
            "localhost:https",
            "::1:8443",
            "256.0.0.1:8443",
            "10.0.0:8443",
            "https://a:8443",
            "a b:1",
            "a/b:1",
            "[localhost]:1",
        ] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_stands_for_every_address_that_this_host_has() {
        let listen: Listen = "localhost:8443".parse().unwrap();
        let found = listen.resolve("--listen").unwrap();
        assert_eq!(found[0], "127.0.0.1:8443".parse().unwrap(), "{found:?}");
        assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");

        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let found = ["[::1]:1", "192.0.2.1:1", "127.0.0.1:1", "[::1]:1"].map(address);
        let is_own = |address: SocketAddr| address.ip().is_loopback();
        let expected = ["127.0.0.1:1", "[::1]:1"].map(address);
        assert_eq!(own_addresses(&found, is_own), expected);
    }

    #[test]
    fn a_name_that_leads_nowhere_here_is_told_with_its_option() {
        // RFC 6761: `.invalid` has no address.
        let listen: Listen = "shoal.invalid:8443".parse().unwrap();
        let error = format!("{:#}", listen.resolve("--node-listen").unwrap_err());
        assert!(
            error.starts_with("find the address of --node-listen shoal.invalid:8443"),
            "{error}"
        );
        // No host has an address of TEST-NET-1.
        assert!(!is_of_this_host("192.0.2.1:1".parse().unwrap()));
    }
}
