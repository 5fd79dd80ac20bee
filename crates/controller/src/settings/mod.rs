// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller's settings: the only place that reads flags and environment variables.

mod audit;
mod listen;
pub mod listeners;
mod parts;
mod tls;

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};
use url::Url;

use audit::AuditArgs;
pub use listen::Listen;
use tls::TlsArgs;

use crate::access::role_bindings::RoleBinding;
use crate::access::{clients, oidc};
use crate::files::restrict_to_owner;
use crate::settings::listeners::{Addresses, Socket, Urls};

/// While firmware tests memory, and in slow emulated machines, minutes pass between two reads.
const BOOT_SILENCE_MAX: Duration = Duration::from_secs(180);

/// The Shoal controller.
#[derive(Debug, Parser)]
#[command(name = "shoal-controller", version, about)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API, the media and the registry.
    Serve(Box<ServeArgs>),
    /// Write the state of a data directory into one file; a controller may serve meanwhile.
    Backup(BackupArgs),
    /// Make a new data directory of a backup. Open jobs end as failed, their machines are left alone.
    Restore(RestoreArgs),
    /// Seal the BMC passwords with a new root key. The controller must be stopped.
    RotateKey(RotateKeyArgs),
}

#[derive(Debug, clap::Args)]
pub struct RotateKeyArgs {
    /// The controller's data directory.
    #[arg(long, env = "SHOAL_DATA_DIR")]
    pub data_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    /// The controller's data directory.
    #[arg(long, env = "SHOAL_DATA_DIR")]
    pub data_dir: PathBuf,
    /// The new file; it gets mode 0600.
    #[arg(long)]
    pub output: PathBuf,
    /// With the keys: the file then opens every BMC. Without them each BMC's password must be set
    /// again after a restore, and there are a new CA and a new admin token.
    #[arg(long)]
    pub with_keys: bool,
    /// With the registry's content, instead of the list of its tags.
    #[arg(long)]
    pub with_artifacts: bool,
}

#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(long)]
    pub input: PathBuf,
    /// The new data directory.
    #[arg(long)]
    pub data_dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Where everything is kept; created when it is absent.
    #[arg(long, env = "SHOAL_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Address and port for people and programs: the API and the registry. A host name stands for all its
    /// addresses. And for everyone who has no
    /// address of their own by the next two options.
    #[arg(long, env = "SHOAL_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: Listen,
    /// Address and port for machines that are being installed, and for nobody else: what they tell, and
    /// pulls of their job's artifact.
    #[arg(long, env = "SHOAL_NODE_LISTEN")]
    pub node_listen: Option<Listen>,
    /// Address and port for BMCs, and for nobody else: the media that machines boot from.
    #[arg(long, env = "SHOAL_MEDIA_LISTEN")]
    pub media_listen: Option<Listen>,
    /// This controller as a provisioned machine reaches it, such as https://192.0.2.5:8443; by default
    /// the address that serves machines, or loopback where that is every address.
    #[arg(long, env = "SHOAL_NODE_URL")]
    pub node_url: Option<Url>,
    /// This controller as a BMC reaches it; by default the address that serves BMCs, with the node URL's
    /// host where that is every address.
    #[arg(long, env = "SHOAL_MEDIA_URL")]
    pub media_url: Option<Url>,
    /// This controller as a machine's firmware reaches it, where a BMC has no virtual CD and the firmware
    /// downloads the medium (UEFI HTTP boot); by default the node URL where BMCs are served at the same
    /// address, and else the media URL.
    #[arg(long, env = "SHOAL_HTTP_BOOT_URL")]
    pub http_boot_url: Option<Url>,
    /// The maintenance OS that machines are booted with.
    #[arg(long, env = "SHOAL_MAINTENANCE_ISO")]
    pub maintenance_iso: Option<PathBuf>,
    /// File with the secret that foreign senders of the status webhook give as X-Webhook-Secret;
    /// without it only the admin token is taken.
    #[arg(long, env = "SHOAL_WEBHOOK_SECRET_FILE")]
    pub webhook_secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub clients: ClientArgs,
    #[command(flatten)]
    pub oidc: OidcArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub audit: AuditArgs,
    /// Serve without TLS: tokens and recipes can be read on the network.
    #[arg(long)]
    pub dangerously_plain_http: bool,
    /// Serve --media-listen without TLS, for BMCs that cannot do it: who is on that network can read
    /// recipes and kickstarts, and change what machines boot.
    #[arg(long)]
    pub dangerously_plain_media: bool,
    /// Accept every API and registry request without a token.
    #[arg(long)]
    pub dangerously_no_auth: bool,
    /// For tests against simulated machines: every wait takes this part of its time.
    #[arg(long, hide = true, default_value = "1", value_parser = time_scale)]
    pub test_time_scale: f64,
}

fn time_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(part) if part > 0.0 && part <= 1.0 => Ok(part),
        _ => Err(format!("{text:?} is not above 0 and at most 1")),
    }
}

/// Certificates of clients, taken beside tokens.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientArgs {
    /// CAs, as PEM, whose certificates --listen takes in place of a token.
    #[arg(
        long,
        env = "SHOAL_CLIENT_CA_FILE",
        value_name = "FILE",
        conflicts_with = "dangerously_plain_http"
    )]
    pub client_ca_file: Option<PathBuf>,
    /// Revocation lists of these CAs, as PEM; read again whenever the file changes. With it a certificate
    /// counts only while every CA above it has a list here that is not out of date.
    #[arg(long, env = "SHOAL_CLIENT_CRL_FILE", value_name = "FILE", requires = "client_ca_file")]
    pub client_crl_file: Option<PathBuf>,
    /// The role (reader, operator or admin) of a certificate with this DNS name or URI; one * may stand at its
    /// end or beginning; can be given several times.
    #[arg(long = "client-role", value_name = "ROLE=NAME", value_parser = clients::parse_role,
          requires = "client_ca_file")]
    pub client_roles: Vec<(RoleBinding, clients::Pattern)>,
    /// A certificate with this name, written as above, pushes to the registry below PREFIX and pulls from
    /// there; can be given several times.
    #[arg(long = "client-publish", value_name = "PREFIX=NAME", value_parser = clients::parse_publish,
          requires = "client_ca_file")]
    pub client_publish: Vec<(RoleBinding, clients::Pattern)>,
}

impl ClientArgs {
    fn settings(self) -> anyhow::Result<Option<clients::Settings>> {
        let Some(ca_file) = self.client_ca_file else { return Ok(None) };
        let given = [self.client_roles, self.client_publish].concat();
        ensure!(
            !given.is_empty(),
            "--client-ca-file gives nobody anything; add --client-role or --client-publish"
        );
        Ok(Some(clients::Settings { ca_file, crl_file: self.client_crl_file, given }))
    }
}

/// Tokens of an identity provider, taken beside our own.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct OidcArgs {
    /// The OpenID Connect issuer whose tokens are taken, exactly as they name it, such as
    /// https://login.example.org/realms/infra.
    #[arg(long, env = "SHOAL_OIDC_ISSUER", value_name = "URL", value_parser = oidc::check_issuer,
          requires = "oidc_audience")]
    pub oidc_issuer: Option<String>,
    /// Which tokens are for this controller: their `aud`.
    #[arg(long, env = "SHOAL_OIDC_AUDIENCE", value_name = "AUDIENCE", requires = "oidc_issuer")]
    pub oidc_audience: Option<String>,
    /// The role (reader, operator or admin) of those in whose claim VALUE is; can be given several times.
    #[arg(long = "oidc-role", value_name = "ROLE=VALUE", value_parser = oidc::parse_role,
          requires = "oidc_issuer")]
    pub oidc_roles: Vec<(RoleBinding, String)>,
    /// Those in whose claim VALUE is push to the registry below PREFIX and pull from there; can be given
    /// several times.
    #[arg(long = "oidc-publish", value_name = "PREFIX=VALUE", value_parser = oidc::parse_publish,
          requires = "oidc_issuer")]
    pub oidc_publish: Vec<(RoleBinding, String)>,
    /// The claim that all this hangs on; with dots for a claim within another, such as realm_access.roles.
    #[arg(long, env = "SHOAL_OIDC_CLAIM", value_name = "CLAIM", default_value = "groups")]
    pub oidc_claim: String,
    /// The issuer's keys as a JSON Web Key Set, where the issuer itself cannot be asked for them.
    #[arg(long, env = "SHOAL_OIDC_JWKS_FILE", value_name = "FILE", requires = "oidc_issuer")]
    pub oidc_jwks_file: Option<PathBuf>,
    /// CAs of the issuer's certificate, as PEM; by default those of this system.
    #[arg(
        long,
        env = "SHOAL_OIDC_CA_FILE",
        value_name = "FILE",
        requires = "oidc_issuer",
        conflicts_with = "oidc_jwks_file"
    )]
    pub oidc_ca_file: Option<PathBuf>,
}

impl OidcArgs {
    fn settings(self) -> anyhow::Result<Option<oidc::Settings>> {
        let (Some(issuer), Some(audience)) = (self.oidc_issuer, self.oidc_audience) else {
            return Ok(None);
        };
        let given = [self.oidc_roles, self.oidc_publish].concat();
        ensure!(
            !given.is_empty(),
            "--oidc-issuer gives nobody anything; add --oidc-role or --oidc-publish"
        );
        Ok(Some(oidc::Settings {
            issuer,
            audience,
            claim: self.oidc_claim,
            given,
            keys: match self.oidc_jwks_file {
                Some(path) => oidc::Source::File(path),
                None => oidc::Source::Discovery { ca_file: self.oidc_ca_file },
            },
        }))
    }
}

/// What the embedded registry keeps.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RegistryArgs {
    /// Tags below this prefix never move; can be given several times [default: os-images/ tools/].
    #[arg(long = "registry-immutable", value_name = "PREFIX")]
    pub immutable: Vec<registry::Prefix>,
    /// Below PREFIX each repository keeps its N last tags; can be given several times.
    #[arg(long = "registry-keep-last", value_name = "PREFIX=N", value_parser = keep_last)]
    pub keep_last: Vec<(registry::Prefix, usize)>,
}

impl RegistryArgs {
    pub fn policy(&self) -> registry::Policy {
        let default = registry::Policy::default();
        let immutable =
            if self.immutable.is_empty() { default.immutable } else { self.immutable.clone() };
        registry::Policy { immutable, keep_last: self.keep_last.clone(), ..default }
    }
}

fn keep_last(text: &str) -> Result<(registry::Prefix, usize), String> {
    let (prefix, count) = text.split_once('=').ok_or("write PREFIX=N, such as ci/=10")?;
    let prefix = prefix.parse().map_err(|error: registry::InvalidPrefix| error.to_string())?;
    match count.parse() {
        Ok(count) if count > 0 => Ok((prefix, count)),
        _ => Err(format!("{count:?} is not how many tags to keep")),
    }
}

/// The checked settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub data_dir: PathBuf,
    /// At least one; the admin's first.
    pub sockets: Vec<Socket>,
    /// Host names that the listen options gave in place of addresses.
    pub listen_names: Vec<String>,
    pub node_url: Url,
    pub media_url: Url,
    /// The URL from which firmware downloads a medium.
    pub http_boot_url: Url,
    pub maintenance_iso: Option<PathBuf>,
    pub webhook_secret_file: Option<PathBuf>,
    pub tls: TlsArgs,
    /// Client certificates that are accepted in place of a token.
    pub clients: Option<clients::Settings>,
    /// Tokens of an identity provider that are accepted besides the controller's own.
    pub oidc: Option<oidc::Settings>,
    pub registry: RegistryArgs,
    pub audit: AuditArgs,
    pub plain_http: bool,
    pub no_auth: bool,
    /// How long a boot that this controller did not watch may be silent before it is considered lost.
    pub boot_silence_max: Duration,
    /// 1, except in tests.
    pub time_scale: f64,
}

impl Settings {
    pub fn check(args: ServeArgs) -> anyhow::Result<Settings> {
        let own = |listen: &Option<Listen>, option| {
            listen.as_ref().map(|listen| listen.resolve(option)).transpose()
        };
        let sockets = listeners::sockets(Addresses {
            admin: args.listen.resolve("--listen")?,
            node: own(&args.node_listen, "--node-listen")?,
            media: own(&args.media_listen, "--media-listen")?,
            is_plain_http: args.dangerously_plain_http,
            is_plain_media: args.dangerously_plain_media,
        })?;
        let listens = [Some(&args.listen), args.node_listen.as_ref(), args.media_listen.as_ref()];
        let listen_names =
            listens.into_iter().flatten().filter_map(Listen::name).map(str::to_owned).collect();
        let given = |url: Option<Url>, option| url.map(|url| base(url, option)).transpose();
        let node_url = given(args.node_url, "--node-url")?;
        let media_url = given(args.media_url, "--media-url")?;
        let http_boot_url = given(args.http_boot_url, "--http-boot-url")?;
        let Urls { node: node_url, media: media_url, http_boot: http_boot_url } =
            listeners::urls(&sockets, node_url, media_url, http_boot_url)?;
        let maintenance_iso = args
            .maintenance_iso
            .map(|path| path.canonicalize().with_context(|| format!("find {}", path.display())))
            .transpose()?;
        keep_private(&args.data_dir)
            .with_context(|| format!("create {}", args.data_dir.display()))?;
        Ok(Settings {
            data_dir: args.data_dir,
            sockets,
            listen_names,
            node_url,
            media_url,
            http_boot_url,
            maintenance_iso,
            webhook_secret_file: args.webhook_secret_file,
            tls: args.tls,
            clients: args.clients.settings()?,
            oidc: args.oidc.settings()?,
            registry: args.registry,
            audit: args.audit,
            plain_http: args.dangerously_plain_http,
            no_auth: args.dangerously_no_auth,
            boot_silence_max: BOOT_SILENCE_MAX.mul_f64(args.test_time_scale),
            time_scale: args.test_time_scale,
        })
    }

    /// How long to wait for something that usually takes `usual`.
    pub fn scaled(&self, usual: Duration) -> Duration {
        usual.mul_f64(self.time_scale)
    }

    /// How long each kind of Redfish operation may take.
    pub fn redfish_budgets(&self) -> redfish::Budgets {
        let usual = redfish::Budgets::default();
        redfish::Budgets {
            read: self.scaled(usual.read),
            request: self.scaled(usual.request),
            grace: self.scaled(usual.grace),
            retries: self.scaled(usual.retries),
            insert: self.scaled(usual.insert),
            update: self.scaled(usual.update),
            effect: self.scaled(usual.effect),
            shutdown: self.scaled(usual.shutdown),
            conflict: self.scaled(usual.conflict),
            poll: self.scaled(usual.poll),
        }
    }

    /// `host:port` of the embedded registry, as machines reach it.
    pub fn registry_authority(&self) -> String {
        self.node_url.authority().to_owned()
    }

    /// Whether a reference's host denotes the embedded registry.
    pub fn is_own_registry(&self, authority: &str) -> bool {
        authority == recipe::CONTROLLER_HOST || authority == self.node_url.authority()
    }
}

/// Creates the data directory, and restricts it and its content to its owner. A directory that contains other files
/// keeps its modes: it may be a shared one such as `/tmp`.
fn keep_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let is_ours = dir.join("root.key").exists() || std::fs::read_dir(dir)?.next().is_none();
    if is_ours {
        restrict_to_owner(dir)?;
    }
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

/// Returns a URL if it has scheme, host and port only.
fn base(url: Url, flag: &str) -> anyhow::Result<Url> {
    if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
        bail!("{flag} {url}: write scheme, host and port only, such as https://192.0.2.5:8443");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use api::access::Role;

    use super::*;

    #[test]
    fn an_identity_provider_is_told_whole_or_not_at_all() {
        let parse = |line: &str| {
            let all = ["shoal-controller", "serve", "--data-dir", "d"];
            let args = Args::try_parse_from(all.into_iter().chain(line.split_whitespace()))?;
            let Command::Serve(args) = args.command else { panic!("it says serve") };
            args.oidc.settings()
        };
        assert!(parse("").unwrap().is_none());
        let given = "--oidc-issuer https://id.example/x --oidc-audience shoal \
                     --oidc-role admin=root --oidc-publish ci/=builders";
        let settings = parse(given).unwrap().unwrap();
        assert_eq!(settings.issuer, "https://id.example/x");
        let publish = RoleBinding::Publish("ci/".parse().unwrap());
        let given = [(RoleBinding::Role(Role::Admin), "root".into()), (publish, "builders".into())];
        assert_eq!(settings.given, given);
        assert_eq!(settings.claim, "groups");
        for bad in [
            "--oidc-issuer https://id.example",
            "--oidc-issuer https://id.example --oidc-audience shoal",
            "--oidc-audience shoal",
            "--oidc-role admin=root",
            "--oidc-issuer http://id.example --oidc-audience shoal --oidc-role admin=root",
            "--oidc-issuer https://id.example --oidc-audience shoal --oidc-role publisher=ci",
            "--oidc-issuer https://id.example --oidc-audience shoal --oidc-role admin=",
            "--oidc-issuer https://id.example --oidc-audience shoal --oidc-publish ../=ci",
            "--oidc-publish ci/=ci",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_registry_keeps_is_told_by_prefix() {
        let parse = |more: &[&str]| {
            let line = ["shoal-controller", "serve", "--data-dir", "d"];
            Args::try_parse_from(line.iter().chain(more)).map(|args| {
                let Command::Serve(args) = args.command else { panic!("it says serve") };
                args.registry.policy()
            })
        };
        let policy = parse(&["--registry-keep-last", "ci/=3", "--registry-keep-last", "x=1"]);
        let policy = policy.unwrap();
        assert_eq!(policy.tags_kept(&"ci/app".parse().unwrap()), Some(3));
        assert_eq!(policy.tags_kept(&"other".parse().unwrap()), None);
        assert!(policy.is_immutable(&"os-images/debian".parse().unwrap()));
        let policy = parse(&["--registry-immutable", "prod/"]).unwrap();
        assert!(policy.is_immutable(&"prod/a".parse().unwrap()));
        assert!(!policy.is_immutable(&"os-images/debian".parse().unwrap()));
        for bad in ["ci/", "ci/=0", "ci/=x", "../=1", "="] {
            assert!(parse(&["--registry-keep-last", bad]).is_err(), "{bad}");
        }
    }
}
