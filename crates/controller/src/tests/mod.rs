// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the whole controller over HTTP: the real router, the real store, and a simulated BMC.

mod about;
mod access;
mod artifacts;
mod as_found;
mod backup;
mod bad_input;
pub mod bmc;
mod bounds;
mod disk_full;
mod early_refusals;
mod firmware;
mod fleet;
mod identity;
pub mod installable;
mod invariants;
mod jobs;
mod listeners;
mod media;
mod node_messages;
mod own_certificate;
mod preflight;
mod replay;
mod rotation;
pub mod rows;
mod slots;
mod sql_errors;
mod tls;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http;
use crate::http::App;
use crate::jobs::{Driver, start};
use crate::serve::{build, install_crypto};
use crate::settings::{Listen, ServeArgs, Settings};
use crate::store::{JobRow, ServerRow};

/// Longest wait for something that a test expects.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A controller on a port of its own, in a directory that can outlive it.
pub struct Controller {
    pub app: App,
    pub url: String,
    driver: Driver,
    servers: tokio::task::JoinSet<()>,
}

impl Controller {
    pub async fn start(dir: &std::path::Path) -> Controller {
        Controller::start_with(dir, |_settings| {}).await
    }

    /// Starts a controller with changed settings.
    pub async fn start_with(
        dir: &std::path::Path,
        change: impl FnOnce(&mut Settings),
    ) -> Controller {
        Controller::start_on(dir, &[listen().await], change).await
    }

    /// Starts a controller with one listener each for people, machines and BMCs.
    pub async fn start_apart(dir: &std::path::Path) -> Controller {
        let listeners = [listen().await, listen().await, listen().await];
        Controller::start_on(dir, &listeners, |_settings| {}).await
    }

    async fn start_on(
        dir: &std::path::Path,
        listeners: &[std::net::TcpListener],
        change: impl FnOnce(&mut Settings),
    ) -> Controller {
        install_crypto();
        let addresses: Vec<_> = listeners.iter().map(|own| own.local_addr().unwrap()).collect();
        let mut settings = settings_at(dir, &addresses);
        change(&mut settings);
        let app = build(settings).unwrap();
        crate::serve::resume(&app).await.unwrap();
        let mut servers = tokio::task::JoinSet::new();
        for (listener, socket) in listeners.iter().zip(&app.settings.sockets) {
            let listener = listener.try_clone().unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let router = http::router(app.clone(), &socket.serves)
                .layer(axum::middleware::from_fn(about::as_told));
            servers.spawn(async move { axum::serve(listener, router).await.unwrap() });
        }
        let driver = start(app.jobs.clone());
        Controller { url: format!("http://{}", addresses[0]), app, driver, servers }
    }

    /// Stops the controller as if by `kill -9`: nothing is finished or recorded.
    pub async fn kill(mut self) {
        self.servers.shutdown().await;
        self.driver.stop().await;
        drop(self.app);
    }

    pub fn admin_token(&self) -> String {
        let path = self.app.settings.data_dir.join("admin-token");
        std::fs::read_to_string(path).unwrap()
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        reqwest::Client::new()
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(self.admin_token())
    }

    pub async fn get(&self, path: &str) -> Value {
        self.request("GET", path).send().await.unwrap().json().await.unwrap()
    }

    /// Sends a message as the machine of a job would, and returns the status. A hello is from the boot that it names;
    /// other messages are from the boot that said hello last.
    pub async fn say(&self, job_id: &str, what: &str, body: &Value) -> u16 {
        let job = self.app.store.job(job_id).await.unwrap();
        let mut body = body.clone();
        let token = if what == "hello" {
            // A longer boot id is cut, so the session is derived from the cut one.
            let boot = crate::store::bounded(body["boot_id"].as_str().unwrap().to_owned(), 256);
            body["session_sha256"] = session_sha256(&boot).into();
            self.app.keys.attempt_token(&job.attempt)
        } else {
            session_token(job.boot_id.as_deref().unwrap_or_default())
        };
        let request = reqwest::Client::new()
            .post(format!("{}/api/v1/node/attempts/{}/{what}", self.url, job.attempt))
            .bearer_auth(token);
        request.json(&body).send().await.unwrap().status().as_u16()
    }

    /// The job, once `wanted` holds of it.
    pub async fn job_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.when(&format!("/api/v1/jobs/{id}"), wanted).await
    }

    /// The job's events, once `wanted` holds of them.
    pub async fn events_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.when(&format!("/api/v1/jobs/{id}/events"), wanted).await
    }

    async fn when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mut commits = self.app.store.commits();
        loop {
            let seen = self.get(path).await;
            if wanted(&seen) {
                return seen;
            }
            if tokio::time::timeout_at(deadline, commits.changed()).await.is_err() {
                panic!("{path} stays {seen:#}\n{:#}", self.get(&format!("{path}/events")).await);
            }
        }
    }
}

/// The token of a boot's session.
pub fn session_token(boot_id: &str) -> String {
    format!("shp_session_{boot_id}")
}

pub fn session_sha256(boot_id: &str) -> String {
    hex::encode(crate::keys::sha256(session_token(boot_id).as_bytes()))
}

/// A free port.
async fn listen() -> std::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().into_std().unwrap()
}

/// A controller in `dir`, with a small maintenance ISO.
pub fn settings(dir: &std::path::Path, listen: std::net::SocketAddr) -> Settings {
    settings_at(dir, &[listen])
}

/// Settings with one address each for people, machines and BMCs, or one for all of them.
fn settings_at(dir: &std::path::Path, addresses: &[std::net::SocketAddr]) -> Settings {
    let iso = dir.join("maintenance.iso");
    if !iso.exists() {
        std::fs::write(&iso, vec![7; 100_000]).unwrap();
    }
    Settings::check(ServeArgs {
        data_dir: dir.join("data"),
        listen: Listen::Address(addresses[0]),
        node_listen: addresses.get(1).copied().map(Listen::Address),
        media_listen: addresses.get(2).copied().map(Listen::Address),
        node_url: None,
        media_url: None,
        http_boot_url: None,
        maintenance_iso: Some(iso),
        webhook_secret_file: None,
        tls: Default::default(),
        clients: Default::default(),
        oidc: Default::default(),
        registry: Default::default(),
        audit: Default::default(),
        dangerously_plain_http: true,
        dangerously_plain_media: false,
        dangerously_no_auth: false,
        test_time_scale: 1.0,
    })
    .unwrap()
}

/// A Linux recipe whose artifact is outside the embedded registry.
pub fn linux_recipe() -> Value {
    json!({
        "task_target": "install-linux.target",
        "target_disk": {"serial": "DISK1"},
        "oci_url": "registry.example:5000/os-images/debian:13",
        "partition_layout": [
            {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "ESP"},
            {"size": "64M", "type_guid": "0c01", "format": "vfat", "label": "cidata"},
            {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"}
        ],
        "user_data": "#cloud-config\nhostname: first\n"
    })
}

/// A controller whose driver does not run, with a job for this BMC.
pub async fn with_job(dir: &std::path::Path, bmc: &bmc::Bmc) -> (App, JobRow) {
    let app = crate::serve::build(settings(dir, ([127, 0, 0, 1], 1).into())).unwrap();
    let server = ServerRow {
        bmc_url: bmc.url.clone(),
        bmc_password: app.keys.root.seal("SN1", &bmc.url, "p").unwrap(),
        bmc_pin: Some(bmc.pin.clone()),
        ..rows::server("SN1")
    };
    app.store.put_server(server).await.unwrap();
    app.store.create_job(rows::job("j1", "SN1", "a1")).await.unwrap();
    let job = app.store.job("j1").await.unwrap();
    (app, job)
}

pub fn temp_dir() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}
