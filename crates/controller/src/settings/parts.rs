// SPDX-License-Identifier: AGPL-3.0-or-later
//! The parts of the settings that single modules need.

use super::Settings;
use crate::{access, keys};

impl Settings {
    /// The settings for keys and certificates.
    pub fn keys(&self) -> keys::Config {
        let addresses = self.sockets.iter().map(|socket| socket.address.ip());
        let mut names: Vec<String> =
            addresses.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string()).collect();
        names.extend(self.listen_names.iter().map(|name| name.to_ascii_lowercase()));
        for url in [&self.node_url, &self.media_url, &self.http_boot_url] {
            names.extend(url.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()));
        }
        names.extend(self.tls.tls_names.iter().cloned());
        keys::Config {
            names,
            own_certificate: self.tls.tls_cert.clone().zip(self.tls.tls_key.clone()),
            webhook_secret_file: self.webhook_secret_file.clone(),
        }
    }

    /// The settings for authentication.
    pub fn access(&self) -> access::Config {
        access::Config {
            oidc: self.oidc.clone(),
            clients: self.clients.clone(),
            is_open: self.no_auth,
        }
    }
}
