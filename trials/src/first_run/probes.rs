// SPDX-License-Identifier: AGPL-3.0-or-later
//! Probes of a controller that was given a data directory and no other configuration.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::round::{Round, probe};
use super::world::{ApiRoute, CONTROLLER, GUESSER, Site, Wrong, files};

/// The limit of the throttle.
const WRONG_TOKENS_MAX: usize = 60;
/// The user nobody, on every Debian.
const OTHER_USER: &str = "65534";
/// Paths that a scanner tries first.
const DEFAULT_PASSWORDS: [&str; 8] = [
    "admin:admin",
    "admin:password",
    "admin:",
    "admin:shoal",
    "shoal:shoal",
    "root:root",
    "root:calvin",
    "ADMIN:ADMIN",
];

pub fn round(routes: &[ApiRoute]) -> Round {
    let mut probes = vec![
        probe("it listens on port 8443, and on nothing else", |site| {
            let bound = site.bound()?;
            ensure!(bound == ["tcp 8443"], "bound: {bound:?}");
            Ok(())
        }),
        probe("a scan of all ports finds 8443 alone", |_site| {
            let open = scan()?;
            ensure!(open == [8443], "open: {open:?}");
            Ok(())
        }),
        probe("over plain HTTP it says nothing", says_nothing_plainly),
        probe("its certificate is of its own CA, and of no other", has_own_ca),
        probe("TLS 1.0 and 1.1 are refused, 1.2 and 1.3 are not", speaks_tls),
        probe("its directory is for its owner alone, and so is each secret", keeps_modes),
        probe("another user can read none of its files", keeps_others_out),
        probe("the admin's token is in its file and nowhere else", tells_token_once),
        probe("there is no default password", has_no_default),
        probe("an address with many wrong tokens waits, and no other does", throttles),
    ];
    let open = ["/healthz", "/openapi.json", "/about/licenses"];
    probes.push(probe("what answers without a token is what says that it does", {
        let told: Vec<ApiRoute> = routes.iter().filter(|route| route.is_open).cloned().collect();
        move |site| {
            // The URL of a medium is its secret, and there is no medium yet.
            let told = told.iter().map(|route| route.path.as_str());
            let told: Vec<&str> = told.filter(|path| !path.starts_with("/m/")).collect();
            ensure!(told.iter().all(|path| open.contains(path)), "open by the document: {told:?}");
            for path in told {
                ensure!(site.ask("GET", path, None)? == 200, "{path} is not open");
            }
            let medium = site.ask("GET", "/m/token/task.iso", None)?;
            ensure!(medium == 404, "a medium that nobody made: {medium}");
            Ok(())
        }
    }));
    for route in routes.iter().filter(|route| !route.is_open) {
        let (method, path) = (route.method.clone(), route.path.clone());
        probes.push(probe(format!("no token, no {method} {path}"), move |site| {
            refuses(site, &method, &path)
        }));
    }
    for path in ["/v2/", "/v2/_catalog", "/v2/os-images/debian/tags/list"] {
        probes.push(probe(format!("no token, no GET {path}"), |site| refuses(site, "GET", path)));
    }
    Round {
        probes,
        right: &[],
        wrong: &[
            (&["--node-listen", "0.0.0.0:8444"], Wrong::Files),
            (&["--dangerously-no-auth"], Wrong::Nothing),
            (&["--dangerously-plain-http"], Wrong::Nothing),
        ],
    }
}

fn refuses(site: &Site, method: &str, path: &str) -> anyhow::Result<()> {
    let status = site.ask(method, path, None)?;
    ensure!(status == 401, "answered {status}");
    Ok(())
}

/// Finds open ports by connecting to each: a closed port refuses at once.
pub fn scan() -> anyhow::Result<Vec<u16>> {
    let mut open = Vec::new();
    let address = CONTROLLER.parse()?;
    for port in 1..=u16::MAX {
        match TcpStream::connect(SocketAddr::new(address, port)) {
            Ok(_) => open.push(port),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error).with_context(|| format!("port {port}")),
        }
    }
    Ok(open)
}

fn says_nothing_plainly(site: &Site) -> anyhow::Result<()> {
    for path in ["/", "/healthz", "/openapi.json", "/v2/"] {
        let heard = site.curl(&[&format!("http://localhost:8443{path}")])?;
        ensure!(heard.exit != 0 && heard.status == 0 && heard.body.is_empty(), "{path}: {heard:?}");
    }
    Ok(())
}

fn has_own_ca(site: &Site) -> anyhow::Result<()> {
    let health = "https://localhost:8443/healthz";
    let heard = site.curl(&[health])?;
    ensure!((heard.exit, heard.status) == (0, 200), "with its CA: {heard:?}");
    // A CA with the same name, but another key.
    let other = site.dir.path().join("other.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=Shoal controller CA", "-keyout", "/dev/null", "-out"])
        .arg(&other)
        .output()
        .context("start openssl")?;
    ensure!(made.status.success(), "openssl made no CA: {:?}", made.stderr);
    let heard = site.curl_trusting(&other, &[health])?;
    ensure!(heard.exit != 0 && heard.status == 0, "with another CA: {heard:?}");
    // By an address that is not among the certificate's names; 60 is CURLE_PEER_FAILED_VERIFICATION.
    let heard = site.curl(&[&format!("https://{CONTROLLER}:8443/healthz")])?;
    ensure!(heard.exit == 60, "by another name: {heard:?}");
    Ok(())
}

/// Returns the output of `openssl s_client` for a handshake in one TLS version.
fn handshake(version: &str) -> anyhow::Result<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("{CONTROLLER}:8443"), version])
        // Without this security level a current client does not even offer the old versions.
        .args(["-cipher", "ALL:@SECLEVEL=0"])
        .stdin(Stdio::null())
        .output()
        .context("start openssl")?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn speaks_tls(_site: &Site) -> anyhow::Result<()> {
    for version in ["-tls1", "-tls1_1"] {
        let said = handshake(version)?;
        // An alert of the server, handshake_failure or protocol_version (RFC 8446, section 6), not a
        // client that could not offer the version.
        let is_refused = ["SSL alert number 40", "SSL alert number 70"];
        ensure!(is_refused.iter().any(|alert| said.contains(alert)), "{version}: {said}");
    }
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = handshake(version)?;
        ensure!(said.contains(&format!("New, {name}, Cipher is ")), "{version}: {said}");
    }
    Ok(())
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    let metadata = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(metadata.permissions().mode() & 0o777)
}

fn keeps_modes(site: &Site) -> anyhow::Result<()> {
    for dir in [site.data.clone(), site.data.join("tls")] {
        ensure!(mode(&dir)? == 0o700, "{}: {:o}", dir.display(), mode(&dir)?);
    }
    for name in ["admin-token", "root.key", "attempt.key", "tls/ca.key", "tls/server.key"] {
        let mode = mode(&site.data.join(name))?;
        ensure!(mode == 0o600, "{name}: {mode:o}");
    }
    Ok(())
}

fn keeps_others_out(site: &Site) -> anyhow::Result<()> {
    let can_read = |path: &Path| -> anyhow::Result<bool> {
        let output = Command::new("setpriv")
            .args(["--reuid", OTHER_USER, "--regid", OTHER_USER, "--clear-groups", "cat"])
            .arg(path)
            .output()
            .context("start setpriv")?;
        Ok(output.status.success())
    };
    // The same user can read files outside the directory.
    ensure!(can_read(&site.log)?, "nobody reads nothing here at all");
    let files = files(&site.data)?;
    ensure!(files.len() > 5, "only {} files", files.len());
    for path in files {
        ensure!(!can_read(&path)?, "{} is for everyone", path.display());
    }
    Ok(())
}

fn tells_token_once(site: &Site) -> anyhow::Result<()> {
    let token = site.admin_token()?;
    ensure!(token.len() >= 64, "{} characters", token.len());
    let mut places = files(&site.data)?;
    places.push(site.log.clone());
    places.retain(|path| !path.ends_with("admin-token"));
    for path in places {
        let bytes = fs::read(&path)?;
        let is_there = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        ensure!(!is_there, "{} has it too", path.display());
    }
    let log = fs::read_to_string(&site.log)?;
    ensure!(log.contains("admin-token"), "the log does not tell where it is");
    Ok(())
}

fn has_no_default(site: &Site) -> anyhow::Result<()> {
    for pair in DEFAULT_PASSWORDS {
        for path in ["/api/v1/jobs", "/v2/"] {
            let heard = site.curl(&["--user", pair, &format!("https://localhost:8443{path}")])?;
            ensure!(heard.status == 401, "{pair} at {path}: {heard:?}");
        }
    }
    // The same request with the valid token.
    let pair = format!("admin:{}", site.admin_token()?);
    let heard = site.curl(&["--user", &pair, "https://localhost:8443/api/v1/jobs"])?;
    ensure!(heard.status == 200, "with the admin's token: {heard:?}");
    Ok(())
}

fn throttles(site: &Site) -> anyhow::Result<()> {
    let url = format!("https://localhost:8443/api/v1/jobs?limit=[1-{WRONG_TOKENS_MAX}]");
    let wrong = ["--interface", GUESSER, "--header", "Authorization: Bearer shp_admin_wrong"];
    let heard = site.curl(&[wrong.as_slice(), &["--output", "/dev/null", &url]].concat())?;
    // curl prints a status for each, one per line.
    let statuses: Vec<&str> = heard.body.lines().filter(|line| !line.is_empty()).collect();
    let all_refused = statuses.iter().all(|status| *status == "401") && heard.status == 401;
    ensure!(statuses.len() + 1 == WRONG_TOKENS_MAX && all_refused, "wrong tokens: {heard:?}");
    let token = site.admin_token()?;
    let right = format!("Authorization: Bearer {token}");
    let jobs = "https://localhost:8443/api/v1/jobs";
    let heard = site.curl(&["--interface", GUESSER, "--header", &right, "--include", jobs])?;
    ensure!(heard.status == 429, "then the right one from there: {heard:?}");
    let waits = heard.body.to_ascii_lowercase().contains("\nretry-after: ");
    ensure!(waits, "it does not say for how long: {}", heard.body);
    let elsewhere = site.ask("GET", "/api/v1/jobs", Some(&token))?;
    ensure!(elsewhere == 200, "and from another address: {elsewhere}");
    Ok(())
}
