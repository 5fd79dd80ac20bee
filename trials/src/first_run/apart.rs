// SPDX-License-Identifier: AGPL-3.0-or-later
//! Probes of a controller with three listeners.

use anyhow::ensure;

use super::probes::scan;
use super::round::{Probe, Round, probe};
use super::world::{ApiRoute, Site, Wrong};

const ADMIN: (&str, u16) = ("people", 8443);
const NODE: (&str, u16) = ("machines", 8444);
const MEDIA: (&str, u16) = ("BMCs", 8445);

pub fn round(routes: &[ApiRoute]) -> Round {
    let mut probes = vec![probe("a scan of all ports finds those of three listeners", |site| {
        let (open, bound) = (scan()?, site.bound()?);
        ensure!(open == [8443, 8444, 8445], "open: {open:?}");
        ensure!(bound == ["tcp 8443", "tcp 8444", "tcp 8445"], "bound: {bound:?}");
        Ok(())
    })];
    for listener in [ADMIN, NODE, MEDIA] {
        let routes = routes.to_vec();
        let name = format!("the listener for {} serves them and nobody else", listener.0);
        probes.push(probe(name, move |site| {
            routes.iter().try_for_each(|route| is_as_meant(site, listener, route))
        }));
    }
    probes.push(pushes());
    Round {
        probes,
        right: &[
            "--listen",
            "10.99.0.1:8443",
            "--node-listen",
            "10.99.0.1:8444",
            "--media-listen",
            "10.99.0.1:8445",
        ],
        wrong: &[
            (&["--listen", "10.99.0.1:8443"], Wrong::Nothing),
            (
                &[
                    "--listen",
                    "10.99.0.1:8443",
                    "--node-listen",
                    "10.99.0.1:8445",
                    "--media-listen",
                    "10.99.0.1:8444",
                ],
                Wrong::Nothing,
            ),
        ],
    }
}

/// Connects by address: the address is a name of the certificate, because it was given as an option.
fn url(port: u16, path: &str) -> String {
    format!("https://10.99.0.1:{port}{path}")
}

fn is_as_meant(site: &Site, listener: (&str, u16), route: &ApiRoute) -> anyhow::Result<()> {
    let own: &[_] = match route.path.as_str() {
        path if path.starts_with("/api/v1/node/") => &[NODE],
        path if path.starts_with("/m/") => &[MEDIA],
        // Installers send the webhook from the machines' network.
        path if path.starts_with("/api/v1/status-webhook/") => &[ADMIN, NODE],
        _ => &[ADMIN],
    };
    // A HEAD has no body that would show which 404 it is, so GET is used instead.
    if route.method == "HEAD" {
        return Ok(());
    }
    let url = url(listener.1, &route.path);
    let heard = site.curl(&["--request", &route.method, &url])?;
    let is_absent = heard.status == 404 && heard.body.contains(":no-such-path\"");
    let (method, path) = (&route.method, &route.path);
    ensure!(heard.exit == 0, "{method} {path}: no answer, curl ended with {}", heard.exit);
    ensure!(is_absent != own.contains(&listener), "{method} {path}: {heard:?}");
    Ok(())
}

fn pushes() -> Probe {
    probe("the registry takes pushes from people and from nobody else", |site| {
        let token = format!("Authorization: Bearer {}", site.admin_token()?);
        for (port, expected) in [(ADMIN.1, 202), (NODE.1, 404), (MEDIA.1, 404)] {
            let url = url(port, "/v2/os-images/debian/blobs/uploads/");
            let heard = site.curl(&["--request", "POST", "--header", &token, &url])?;
            ensure!(heard.status == expected, "at {port}: {heard:?}");
        }
        Ok(())
    })
}
