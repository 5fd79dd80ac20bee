// SPDX-License-Identifier: AGPL-3.0-or-later
//! A BMC in a temporary directory, a client that trusts it, and a media server that counts requests.

mod media;

use std::time::{Duration, Instant};

use bmc_sim::{
    Access, Bmc, DiskBus, Firmware, Maker, Settings, Slots,
    qmp::{self, Qmp},
};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

pub use media::Media;

pub const USERNAME: &str = "admin";
pub const PASSWORD: &str = "secret";

// OVMF needs some seconds under TCG, and many more on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Lab {
    pub client: Client,
    pub media: Media,
    bmc: Bmc,
    _directory: TempDir,
}

impl Lab {
    pub async fn start() -> Self {
        Lab::start_with(Slots::TwoCds).await
    }

    pub async fn start_with(slots: Slots) -> Self {
        Lab::start_as(|settings| Settings { slots, ..settings }).await
    }

    /// Starts the default machine after `change` was applied to its settings.
    pub async fn start_as(change: impl FnOnce(Settings) -> Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let work_dir = directory.path().join("work");
        let settings = Settings {
            disk: directory.path().join("disk.raw"),
            disk_bytes: 1 << 30,
            disk_bus: DiskBus::Virtio,
            disk_bad_sector: None,
            maker: Maker::Lab,
            serial: "SN1".into(),
            board_serial: None,
            chassis_serial: None,
            redfish_serial: None,
            redfish_sku: None,
            uuid: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
            memory_mib: 256,
            cpus: 1,
            ssh_port: None,
            mac: None,
            firmware: Firmware::Uefi {
                code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
                vars: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
            },
            work_dir: work_dir.clone(),
            slots: Slots::TwoCds,
        };
        let settings = change(settings);
        let access = Access { username: USERNAME.into(), password: PASSWORD.into() };
        let bmc = bmc_sim::start("127.0.0.1:0".parse().unwrap(), settings, access).await.unwrap();
        let ca = std::fs::read(work_dir.join("bmc-ca.pem")).unwrap();
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(&ca).unwrap()])
            .no_proxy()
            .build()
            .unwrap();
        Self { client, media: Media::start().await, bmc, _directory: directory }
    }

    pub fn at(&self, path: &str) -> String {
        self.bmc.redfish_url.join(path).unwrap().into()
    }

    /// The body of InsertMedia for a file of our media server.
    pub fn image(&self, name: &str) -> Value {
        json!({ "Image": self.media.url(name) })
    }

    pub async fn get(&self, path: &str) -> Value {
        self.expect(Method::GET, path, Value::Null, StatusCode::OK).await
    }

    pub async fn etag(&self, path: &str) -> String {
        let request = self.client.get(self.at(path)).basic_auth(USERNAME, Some(PASSWORD));
        request.send().await.unwrap().headers()["etag"].to_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn expect(
        &self,
        method: Method,
        path: &str,
        body: Value,
        status: StatusCode,
    ) -> impl Future<Output = Value> {
        let told = format!("{method} {path} {body}");
        let mut request = self.client.request(method, self.at(path));
        if !body.is_null() {
            request = request.json(&body);
        }
        let request = request.basic_auth(USERNAME, Some(PASSWORD));
        async move {
            let response = request.send().await.unwrap();
            let (found, text) = (response.status(), response.text().await.unwrap());
            assert_eq!(found, status, "{told}: {text}");
            serde_json::from_str(&text).unwrap_or_default()
        }
    }

    /// Reads a resource until the condition is true.
    pub async fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.get(path).await;
            if is_so(&shown) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {path} is {shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A second QMP connection to the running QEMU.
    pub async fn qmp(&self) -> Qmp {
        let stream = UnixStream::connect(&self.bmc.qmp).await.unwrap();
        let (reader, writer) = stream.into_split();
        let (qmp, _events) = qmp::connect(reader, writer).await.unwrap();
        qmp
    }

    pub async fn stop(self) {
        self.bmc.stop().await.unwrap();
    }
}

/// The block node of the medium that QEMU has in a drive.
pub async fn inserted(qmp: &mut Qmp, device: &str) -> Option<String> {
    let blocks = qmp.execute("query-block", json!({})).await.unwrap();
    let is_device = |block: &&Value| {
        block["qdev"].as_str().unwrap_or_default().split('/').any(|part| part == device)
    };
    let block = blocks.as_array().unwrap().iter().find(is_device);
    let block = block.unwrap_or_else(|| panic!("no {device} in {blocks}"));
    Some(block.get("inserted")?["node-name"].as_str().unwrap().to_owned())
}

/// Reads the last bytes of the medium in a drive, as a guest would. Quietly, because QEMU prints the data
/// to the stream that it uses for the BMC.
pub async fn read_last_bytes(qmp: &mut Qmp, device: &str) {
    let node = inserted(qmp, device).await.unwrap_or_else(|| panic!("no medium in {device}"));
    let line = format!("qemu-io {node} \"read -q {} 6144\"", media::MEDIUM_BYTES - 6144);
    qmp.execute("human-monitor-command", json!({ "command-line": line })).await.unwrap();
}

pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
