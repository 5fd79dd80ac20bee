// SPDX-License-Identifier: AGPL-3.0-or-later
//! The listeners: who is served at which address, according to the settings.
//!
//! ```text
//! people, programs ─▶ admin: API, registry    machines ─▶ node: attempts, pulls    BMCs, firmware ─▶ media: /m/…
//! ```
//!
//! A listener without an address of its own shares the admin's. `http::routes` lists what each serves, and
//! `http::sockets` serves it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::bail;
use url::Url;

/// A group of clients that is served together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// People and their programs.
    Admin,
    /// Machines in the maintenance OS.
    Node,
    /// BMCs, and firmware that boots from their media.
    Media,
}

impl Listener {
    pub const ALL: [Listener; 3] = [Listener::Admin, Listener::Node, Listener::Media];

    fn option(self) -> &'static str {
        match self {
            Listener::Admin => "--listen",
            Listener::Node => "--node-listen",
            Listener::Media => "--media-listen",
        }
    }
}

/// One address, and the listeners that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    pub address: SocketAddr,
    pub serves: Vec<Listener>,
    pub is_plain_http: bool,
}

/// The addresses that the options give; a host name stands for several.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub admin: Vec<SocketAddr>,
    pub node: Option<Vec<SocketAddr>>,
    pub media: Option<Vec<SocketAddr>>,
    pub is_plain_http: bool,
    /// Plain HTTP for media only.
    pub is_plain_media: bool,
}

/// Returns the sockets to open, the admin's first.
pub fn sockets(addresses: Addresses) -> anyhow::Result<Vec<Socket>> {
    let Addresses { admin, node, media, is_plain_http, is_plain_media } = addresses;
    let has_media = media.is_some();
    let of = |listener, is_plain_http| {
        move |address| Socket { address, serves: vec![listener], is_plain_http }
    };
    let mut sockets: Vec<Socket> =
        admin.into_iter().map(of(Listener::Admin, is_plain_http)).collect();
    let of_admin = sockets.len();
    for (listener, own) in [(Listener::Node, node), (Listener::Media, media)] {
        let Some(addresses) = own else {
            for socket in &mut sockets[..of_admin] {
                socket.serves.push(listener);
            }
            continue;
        };
        let met = addresses.iter().find_map(|address| {
            let other = sockets.iter().find(|other| is_same(other.address, *address));
            other.map(|other| (address, other))
        });
        if let Some((address, other)) = met {
            let (option, other_option) = (listener.option(), other.serves[0].option());
            bail!(
                "{option} {address} and {other_option} {} are one address: give {option} another port, \
                 or leave it out to serve both on {}",
                other.address,
                Listener::Admin.option(),
            );
        }
        let is_plain_http = is_plain_http || (listener == Listener::Media && is_plain_media);
        sockets.extend(addresses.into_iter().map(of(listener, is_plain_http)));
    }
    if is_plain_media && !has_media {
        bail!("--dangerously-plain-media needs --media-listen: one port speaks TLS or does not");
    }
    Ok(sockets)
}

/// Whether the kernel would refuse to bind the second: the unspecified address includes every address. Port 0 is
/// another port each time.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let is_every = |address: SocketAddr| address.ip().is_unspecified();
    let hosts_meet =
        one.ip().to_canonical() == other.ip().to_canonical() || is_every(one) || is_every(other);
    one.port() == other.port() && one.port() != 0 && hosts_meet
}

/// The URLs under which machines, BMCs and firmware reach the controller.
#[derive(Debug, Clone)]
pub struct Urls {
    pub node: Url,
    pub media: Url,
    /// For firmware that downloads its medium: it has a machine's address, and requests what a BMC requests.
    pub http_boot: Url,
}

/// Derives the URLs for machines, BMCs and firmware where the options do not give them.
pub fn urls(
    sockets: &[Socket],
    node_url: Option<Url>,
    media_url: Option<Url>,
    http_boot_url: Option<Url>,
) -> anyhow::Result<Urls> {
    let (node, media) = (of(sockets, Listener::Node), of(sockets, Listener::Media));
    let node_url = match node_url {
        Some(url) => url,
        // Machines cannot connect to "0.0.0.0"; loopback is right for a first try on one host.
        None => node.url(&Ipv4Addr::LOCALHOST.to_string(), "--node-url")?,
    };
    let media_url = match media_url {
        Some(url) => url,
        None if media == node => node_url.clone(),
        None => media.url(node_url.host_str().unwrap_or_default(), "--media-url")?,
    };
    let http_boot_url = http_boot_url
        .unwrap_or_else(|| if media == node { node_url.clone() } else { media_url.clone() });
    for (option, url, socket) in [
        ("--node-url", &node_url, node),
        ("--media-url", &media_url, media),
        ("--http-boot-url", &http_boot_url, media),
    ] {
        check_scheme(option, url, socket)?;
    }
    Ok(Urls { node: node_url, media: media_url, http_boot: http_boot_url })
}

/// Checks that a URL has the scheme of the listener to which it leads. On another port there may be a proxy in
/// between that adds TLS, or removes it for BMCs that do not support it. Machines always get a TLS URL if the
/// controller has TLS, because their tokens and secrets are sent there.
fn check_scheme(option: &str, url: &Url, socket: &Socket) -> anyhow::Result<()> {
    let leads_here = url.port_or_known_default() == Some(socket.address.port());
    let listen = socket.option_of(option);
    match (url.scheme(), socket.is_plain_http) {
        ("http", false) if leads_here || option == "--node-url" => {
            let plain = match (option, listen) {
                ("--media-url" | "--http-boot-url", "--media-listen") => {
                    "--dangerously-plain-media"
                }
                _ => "--dangerously-plain-http",
            };
            bail!(
                "{option} {url} has no TLS, but {listen} {} speaks TLS: write https://, or start the controller with \
                 {plain}",
                socket.address
            )
        }
        ("https", true) if leads_here => bail!(
            "{option} {url} has TLS, but {listen} {} is served without: write http://, or start the controller \
             without --dangerously-plain-http and --dangerously-plain-media. Where a proxy adds TLS, let it have \
             another port",
            socket.address
        ),
        _ => Ok(()),
    }
}

/// Returns the socket that serves this listener.
fn of(sockets: &[Socket], listener: Listener) -> &Socket {
    let its = sockets.iter().find(|socket| socket.serves.contains(&listener));
    its.unwrap_or(&sockets[0])
}

impl Socket {
    /// The option that set this socket's address, for an error about `url_option`.
    fn option_of(&self, url_option: &str) -> &'static str {
        let wanted = if url_option == "--node-url" { Listener::Node } else { Listener::Media };
        let is_own = self.serves == [wanted];
        if is_own { wanted.option() } else { Listener::Admin.option() }
    }

    /// The URL under which others reach this socket; `host` replaces the unspecified address.
    fn url(&self, host: &str, option: &str) -> anyhow::Result<Url> {
        let (address, port) = (self.address, self.address.port());
        if port == 0 {
            let listener = self.serves[0].option();
            bail!(
                "{listener} {address} is a port that the system picks: say the URL with {option}"
            );
        }
        let scheme = if self.is_plain_http { "http" } else { "https" };
        let authority = match address.ip().is_unspecified() {
            true => format!("{host}:{port}"),
            false => address.to_string(),
        };
        Ok(Url::parse(&format!("{scheme}://{authority}"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the sockets and URLs of these options, or the error.
    fn planned(options: &str) -> Result<String, String> {
        let value = |name: &str| {
            let mut words = options.split(' ').skip_while(|word| *word != name);
            words.nth(1)
        };
        let address = |name| -> Option<Vec<SocketAddr>> {
            value(name).map(|text| text.split(',').map(|one| one.parse().unwrap()).collect())
        };
        let url = |name| value(name).map(|text| text.parse().unwrap());
        let plan = || {
            let sockets = sockets(Addresses {
                admin: address("admin").unwrap(),
                node: address("node"),
                media: address("media"),
                is_plain_http: options.contains("plain-http"),
                is_plain_media: options.contains("plain-media"),
            })?;
            let urls = urls(&sockets, url("node-url"), url("media-url"), url("http-boot-url"))?;
            let Urls { node, media, http_boot } = urls;
            let mut told = String::new();
            for Socket { address, serves, is_plain_http } in sockets {
                let scheme = if is_plain_http { "http" } else { "https" };
                told += &format!("{scheme} {address} {serves:?}; ");
            }
            Ok(format!("{told}{node} {media} {http_boot}"))
        };
        plan().map_err(|error: anyhow::Error| error.to_string())
    }

    #[test]
    fn each_listener_has_its_address_or_shares_the_admins() {
        for (options, expected) in [
            (
                "admin 0.0.0.0:8443",
                "https 0.0.0.0:8443 [Admin, Node, Media]; \
                 https://127.0.0.1:8443/ https://127.0.0.1:8443/ https://127.0.0.1:8443/",
            ),
            (
                "admin 192.0.2.1:1 node 192.0.2.2:2 media 192.0.2.3:3",
                "https 192.0.2.1:1 [Admin]; https 192.0.2.2:2 [Node]; https 192.0.2.3:3 [Media]; \
                 https://192.0.2.2:2/ https://192.0.2.3:3/ https://192.0.2.3:3/",
            ),
            (
                "admin 192.0.2.1:1 node 192.0.2.2:2",
                "https 192.0.2.1:1 [Admin, Media]; https 192.0.2.2:2 [Node]; \
                 https://192.0.2.2:2/ https://192.0.2.1:1/ https://192.0.2.1:1/",
            ),
            (
                "admin 192.0.2.1:1 media [::]:3 node-url https://[2001:db8::1]:9 plain-media",
                "https 192.0.2.1:1 [Admin, Node]; http [::]:3 [Media]; \
                 https://[2001:db8::1]:9/ http://[2001:db8::1]:3/ http://[2001:db8::1]:3/",
            ),
            (
                "admin 192.0.2.1:1 node 192.0.2.1:2 plain-http media-url https://proxy.example",
                "http 192.0.2.1:1 [Admin, Media]; http 192.0.2.1:2 [Node]; \
                 http://192.0.2.1:2/ https://proxy.example/ https://proxy.example/",
            ),
            (
                "admin 127.0.0.1:0 node 127.0.0.1:0 node-url https://a:1 media-url http://a:2",
                "https 127.0.0.1:0 [Admin, Media]; https 127.0.0.1:0 [Node]; \
                 https://a:1/ http://a:2/ http://a:2/",
            ),
            // A name with two addresses.
            (
                "admin 127.0.0.1:1,[::1]:1",
                "https 127.0.0.1:1 [Admin, Node, Media]; https [::1]:1 [Admin, Node, Media]; \
                 https://127.0.0.1:1/ https://127.0.0.1:1/ https://127.0.0.1:1/",
            ),
            (
                "admin 127.0.0.1:1,[::1]:1 node 127.0.0.1:2,[::1]:2 media [::1]:3 plain-media",
                "https 127.0.0.1:1 [Admin]; https [::1]:1 [Admin]; https 127.0.0.1:2 [Node]; \
                 https [::1]:2 [Node]; http [::1]:3 [Media]; \
                 https://127.0.0.1:2/ http://[::1]:3/ http://[::1]:3/",
            ),
            // A proxy that adds TLS, and one that removes it for BMCs.
            (
                "admin 192.0.2.1:80 plain-http node-url https://shoal.example media-url https://shoal.example",
                "http 192.0.2.1:80 [Admin, Node, Media]; \
                 https://shoal.example/ https://shoal.example/ https://shoal.example/",
            ),
            (
                "admin 192.0.2.1:8443 media-url http://192.0.2.1:8080 http-boot-url http://192.0.2.1",
                "https 192.0.2.1:8443 [Admin, Node, Media]; \
                 https://192.0.2.1:8443/ http://192.0.2.1:8080/ http://192.0.2.1/",
            ),
            // Behind a device that maps ports.
            (
                "admin 0.0.0.0:8443 node-url https://shoal.example",
                "https 0.0.0.0:8443 [Admin, Node, Media]; \
                 https://shoal.example/ https://shoal.example/ https://shoal.example/",
            ),
            (
                "admin 0.0.0.0:1 node-url https://192.0.2.1:1 media-url https://203.0.113.1:1",
                "https 0.0.0.0:1 [Admin, Node, Media]; \
                 https://192.0.2.1:1/ https://203.0.113.1:1/ https://192.0.2.1:1/",
            ),
            (
                "admin 192.0.2.1:1 media 0.0.0.0:3 http-boot-url http://198.51.100.1:3 plain-media",
                "https 192.0.2.1:1 [Admin, Node]; http 0.0.0.0:3 [Media]; \
                 https://192.0.2.1:1/ http://192.0.2.1:3/ http://198.51.100.1:3/",
            ),
        ] {
            assert_eq!(planned(options).as_deref(), Ok(expected), "{options}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_told_with_the_way_out() {
        for (options, expected) in [
            (
                "admin 192.0.2.1:1 node 192.0.2.1:1",
                "--node-listen 192.0.2.1:1 and --listen 192.0.2.1:1 are one address: give \
                 --node-listen another port, or leave it out to serve both on --listen",
            ),
            ("admin 0.0.0.0:1 media 192.0.2.1:1", "--media-listen 192.0.2.1:1 and --listen 0.0.0"),
            (
                "admin 192.0.2.1:1 node [::]:2 media 192.0.2.1:2",
                "--media-listen 192.0.2.1:2 and --node-listen [::]:2 are one address",
            ),
            (
                "admin 127.0.0.1:0",
                "--listen 127.0.0.1:0 is a port that the system picks: say the URL with --node-url",
            ),
            (
                "admin 127.0.0.1:1 media 127.0.0.1:0",
                "--media-listen 127.0.0.1:0 is a port that the system picks: say the URL with --media-url",
            ),
            ("admin 127.0.0.1:1 plain-media", "--dangerously-plain-media needs --media-listen"),
            (
                "admin 127.0.0.1:1,[::1]:1 node [::1]:1",
                "--node-listen [::1]:1 and --listen [::1]:1 are one address",
            ),
            // A URL whose scheme is not its listener's.
            (
                "admin 0.0.0.0:8443 node-url http://192.0.2.5:8443",
                "--node-url http://192.0.2.5:8443/ has no TLS, but --listen 0.0.0.0:8443 speaks TLS: write https://, \
                 or start the controller with --dangerously-plain-http",
            ),
            (
                "admin 0.0.0.0:8443 node-url http://shoal.example",
                "--node-url http://shoal.example/ has no TLS",
            ),
            (
                "admin 0.0.0.0:1 node 0.0.0.0:2 node-url http://192.0.2.5:2",
                "--node-url http://192.0.2.5:2/ has no TLS, but --node-listen 0.0.0.0:2 speaks TLS",
            ),
            (
                "admin 0.0.0.0:1 media-url http://192.0.2.5:1",
                "--media-url http://192.0.2.5:1/ has no TLS, but --listen 0.0.0.0:1 speaks TLS: write https://, or \
                 start the controller with --dangerously-plain-http",
            ),
            (
                "admin 0.0.0.0:1 media 0.0.0.0:3 http-boot-url http://192.0.2.5:3",
                "--http-boot-url http://192.0.2.5:3/ has no TLS, but --media-listen 0.0.0.0:3 speaks TLS: write \
                 https://, or start the controller with --dangerously-plain-media",
            ),
            (
                "admin 0.0.0.0:1 plain-http node-url https://192.0.2.5:1",
                "--node-url https://192.0.2.5:1/ has TLS, but --listen 0.0.0.0:1 is served without: write http://",
            ),
            (
                "admin 0.0.0.0:443 plain-http node-url https://192.0.2.5",
                "--node-url https://192.0.2.5/ has TLS, but --listen 0.0.0.0:443 is served without",
            ),
            (
                "admin 0.0.0.0:1 media 0.0.0.0:3 plain-media media-url https://192.0.2.5:3",
                "--media-url https://192.0.2.5:3/ has TLS, but --media-listen 0.0.0.0:3 is served without",
            ),
        ] {
            let told = planned(options).expect_err(options);
            assert!(told.starts_with(expected), "{options}: {told}");
        }
    }
}
