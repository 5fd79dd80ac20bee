// SPDX-License-Identifier: AGPL-3.0-or-later
//! Serves a recorded BMC over HTTPS, and performs the effects of a request beside its response.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::request::Parts;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;
use url::Url;

use super::bmc::{Bmc, Effect};
use super::machine::Machines;
use super::reply::Answer;
use super::tree::{ROOT, Tree};
use crate::fleet::reply::Request;
use crate::sessions::Access;
use crate::tls;

/// The range that a BMC reads of a medium to see what it is.
const BEGINNING: &str = "bytes=0-524287";
const READ_MAX: Duration = Duration::from_secs(20);
/// Running requests get this long to finish.
const DRAIN: Duration = Duration::from_secs(2);

pub struct Settings {
    pub listen: SocketAddr,
    pub tree: PathBuf,
    pub access: Access,
    /// The directory of the certificate. Without it each start uses a new certificate.
    pub work_dir: Option<PathBuf>,
    /// If set, machines start from their media, as scripts.
    pub maintenance_iso: Option<PathBuf>,
}

/// A system of the tree, in the form that users of the replay get.
#[derive(Debug, Serialize)]
pub struct System {
    pub path: String,
    pub serial: Option<String>,
    pub sku: Option<String>,
    pub uuid: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
}

/// A running BMC.
pub struct Replay {
    pub redfish_url: Url,
    pub certificate_sha256: String,
    pub resources: usize,
    pub systems: Vec<System>,
    http: Handle<SocketAddr>,
    task: JoinHandle<std::io::Result<()>>,
}

#[derive(Clone)]
struct App {
    bmc: Arc<Bmc>,
    machines: Option<Arc<Machines>>,
    client: reqwest::Client,
}

/// Loads the tree and serves it.
pub async fn start(settings: Settings) -> anyhow::Result<Replay> {
    // Fails if a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tree = Tree::load(&settings.tree)?;
    let (resources, systems) = (tree.count(), systems(&tree));
    let machines = settings.maintenance_iso.as_deref().map(Machines::with).transpose()?;
    let identity = match &settings.work_dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
            tls::load_or_make(dir, settings.listen.ip())?
        }
        None => tls::make_version_3(settings.listen.ip())?,
    };
    let client = reqwest::Client::builder()
        // Like most BMCs, it does not check the certificate of a media server.
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .context("make the BMC's HTTP client")?;
    let listener = TcpListener::bind(settings.listen)
        .with_context(|| format!("listen on {}", settings.listen))?;
    listener.set_nonblocking(true).context("make the listener non-blocking")?;
    let address = listener.local_addr().context("read the listener's address")?;
    let bmc = Arc::new(Bmc::new(tree, settings.access));
    let app = App { bmc, machines: machines.map(Arc::new), client };
    let router = Router::new().fallback(respond).with_state(app);
    let http = Handle::new();
    let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(identity.config))
        .context("take over the listener")?
        .handle(http.clone());
    Ok(Replay {
        redfish_url: Url::parse(&format!("https://{address}")).context("make our own URL")?,
        certificate_sha256: identity.certificate_sha256,
        resources,
        systems,
        http,
        task: tokio::spawn(server.serve(router.into_make_service())),
    })
}

impl Replay {
    pub async fn stop(self) -> anyhow::Result<()> {
        self.http.graceful_shutdown(Some(DRAIN));
        self.task.await.context("join the listener's task")?.context("serve Redfish")
    }
}

fn systems(tree: &Tree) -> Vec<System> {
    let root = tree.body(ROOT).cloned().unwrap_or_default();
    let systems = tree.members(&root["Systems"]).into_iter().filter_map(|path| {
        let body = tree.body(&path)?;
        let text = |name: &str| body[name].as_str().map(|text| text.trim().to_owned());
        Some(System {
            serial: text("SerialNumber"),
            sku: text("SKU"),
            uuid: text("UUID"),
            manufacturer: text("Manufacturer"),
            model: text("Model"),
            path,
        })
    });
    systems.collect()
}

async fn respond(State(app): State<App>, head: Parts, bytes: Bytes) -> Answer {
    let request = Request::of(&head, bytes);
    let answer = if request.body == Value::Null && !request.bytes.is_empty() {
        let why = "the body is not JSON";
        (crate::fleet::reply::Reply::refused(400, "MalformedJSON", why).into(), Vec::new())
    } else {
        app.bmc.answer(&request, head.uri.query(), &head.headers)
    };
    let (answer, effects) = answer;
    tracing::debug!(
        method = request.method,
        path = request.path,
        status = answer.status,
        "answered"
    );
    for effect in effects {
        app.follow(effect);
    }
    answer
}

impl App {
    fn follow(&self, effect: Effect) {
        match (effect, &self.machines) {
            (Effect::Read(url), _) => {
                tokio::spawn(read_beginning(self.client.clone(), url));
            }
            (Effect::Off(system), Some(machines)) => machines.off(&system),
            (Effect::Start { system, from }, Some(machines)) => {
                machines.start(self.bmc.recorded(), &system, from);
            }
            (Effect::Off(_) | Effect::Start { .. }, None) => {}
        }
    }
}

async fn read_beginning(client: reqwest::Client, url: String) {
    let sent = client.get(&url).header("range", BEGINNING).timeout(READ_MAX).send().await;
    let read = match sent {
        Ok(answer) => answer.bytes().await.map(|bytes| bytes.len()),
        Err(error) => Err(error),
    };
    match read {
        Ok(bytes) => tracing::debug!(bytes, "read the beginning of a medium"),
        // The URL contains a secret.
        Err(error) => tracing::warn!(error = %error.without_url(), "read a medium"),
    }
}
