// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the controller is told at its start. The only reader of flags and environment.

use std::fs::{DirBuilder, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use url::Url;

/// Firmware tests memory and emulated machines crawl: minutes pass between two reads.
const BOOT_SILENCE_MAX: Duration = Duration::from_secs(180);

/// The Shoal controller.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API, the media and the registry.
    Serve(ServeArgs),
}

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where everything is kept; created when it is absent.
    #[arg(long, env = "SHOAL_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Address and port to listen on.
    #[arg(long, env = "SHOAL_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// This controller as a provisioned machine reaches it, such as https://192.0.2.5:8443.
    #[arg(long, env = "SHOAL_NODE_URL")]
    pub node_url: Option<Url>,
    /// This controller as a BMC reaches it; the node URL if absent.
    #[arg(long, env = "SHOAL_MEDIA_URL")]
    pub media_url: Option<Url>,
    /// The maintenance OS that machines are booted with.
    #[arg(long, env = "SHOAL_MAINTENANCE_ISO")]
    pub maintenance_iso: Option<PathBuf>,
    /// File with the secret that foreign senders of the status webhook give as X-Webhook-Secret;
    /// without it only the admin token is taken.
    #[arg(long, env = "SHOAL_WEBHOOK_SECRET_FILE")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Serve without TLS: tokens and recipes can be read on the network.
    #[arg(long)]
    pub dangerously_plain_http: bool,
    /// Accept every API and registry request without a token.
    #[arg(long)]
    pub dangerously_no_auth: bool,
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub node_url: Url,
    pub media_url: Url,
    pub maintenance_iso: Option<PathBuf>,
    pub webhook_secret_file: Option<PathBuf>,
    pub plain_http: bool,
    pub no_auth: bool,
    /// How long a boot that this controller did not watch may be silent before it is taken for lost.
    pub boot_silence_max: Duration,
}

impl Settings {
    pub fn check(args: ServeArgs) -> anyhow::Result<Settings> {
        let scheme = if args.dangerously_plain_http { "http" } else { "https" };
        let node_url = match args.node_url {
            Some(url) => base(url, "--node-url")?,
            None if args.listen.ip().is_unspecified() => {
                // Machines cannot be told "0.0.0.0"; loopback is right for a first try on one host.
                Url::parse(&format!("{scheme}://127.0.0.1:{}", args.listen.port()))?
            }
            None => Url::parse(&format!("{scheme}://{}", args.listen))?,
        };
        let media_url = match args.media_url {
            Some(url) => base(url, "--media-url")?,
            None => node_url.clone(),
        };
        let maintenance_iso = args
            .maintenance_iso
            .map(|path| path.canonicalize().with_context(|| format!("find {}", path.display())))
            .transpose()?;
        keep_private(&args.data_dir)
            .with_context(|| format!("create {}", args.data_dir.display()))?;
        Ok(Settings {
            data_dir: args.data_dir,
            listen: args.listen,
            node_url,
            media_url,
            maintenance_iso,
            webhook_secret_file: args.webhook_secret_file,
            plain_http: args.dangerously_plain_http,
            no_auth: args.dangerously_no_auth,
            boot_silence_max: BOOT_SILENCE_MAX,
        })
    }

    /// `host:port` of the embedded registry, as a machine reaches it.
    pub fn registry_authority(&self) -> String {
        self.node_url.authority().to_owned()
    }

    /// Whether a reference's host means the embedded registry.
    pub fn is_own_registry(&self, authority: &str) -> bool {
        authority == recipe::CONTROLLER_HOST || authority == self.node_url.authority()
    }
}

/// A directory that only its owner can look into. One that has other things than ours in it keeps
/// its mode: it may be somebody's `/tmp`.
fn keep_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let is_ours = dir.join("root.key").exists() || std::fs::read_dir(dir)?.next().is_none();
    let permissions = std::fs::metadata(dir)?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(());
    }
    if is_ours {
        return std::fs::set_permissions(dir, Permissions::from_mode(0o700));
    }
    tracing::warn!(dir = %dir.display(), "other users can look into the data directory");
    Ok(())
}

/// A URL of scheme, host and port only.
fn base(url: Url, flag: &str) -> anyhow::Result<Url> {
    if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
        bail!("{flag} {url}: write scheme, host and port only, such as https://192.0.2.5:8443");
    }
    Ok(url)
}
