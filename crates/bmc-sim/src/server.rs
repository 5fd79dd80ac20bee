// SPDX-License-Identifier: AGPL-3.0-or-later
//! Starts the BMC and connects its parts: certificate, machine, HTTPS listener.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{self, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use tokio::task::JoinHandle;
use url::Url;

pub use crate::sessions::Access;
use crate::{
    app::Identity,
    arguments::{CONSOLE, VISITOR_SOCKET},
    machine, qemu, redfish,
    settings::{Firmware, Settings},
    slots::Slots,
    tls,
};

/// A running BMC. Dropping it leaves the machine on: call `stop`.
pub struct Bmc {
    pub redfish_url: Url,
    pub certificate_sha256: String,
    pub ssh_port: Option<u16>,
    pub console: PathBuf,
    /// A unix socket on which visitors can use QMP while the power is on.
    pub qmp: PathBuf,
    machine: machine::Handle,
    machine_task: JoinHandle<()>,
    http: Handle<SocketAddr>,
    http_task: JoinHandle<std::io::Result<()>>,
}

// Running requests get this long to finish. The machine is off by then.
const DRAIN: Duration = Duration::from_secs(2);

/// Starts the endpoint. The machine is off.
pub async fn start(
    listen: SocketAddr,
    mut settings: Settings,
    access: Access,
) -> anyhow::Result<Bmc> {
    // Fails if a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if settings.maker.profile().is_some() {
        let has_cds = matches!(settings.slots, Slots::TwoCds | Slots::OneCd);
        ensure!(has_cds, "this maker's BMC has CD slots only: take `cd,cd` or `cd`");
        ensure!(settings.firmware != Firmware::Bios, "this maker's machine has UEFI firmware only");
    }
    // QEMU runs in the work directory.
    let mut paths = vec![&mut settings.work_dir, &mut settings.disk];
    match &mut settings.firmware {
        Firmware::Uefi { code, vars } => paths.extend([code, vars]),
        Firmware::Bios => {
            ensure!(settings.slots != Slots::Http, "UEFI HTTP boot needs UEFI firmware");
        }
    }
    for path in paths {
        *path = path::absolute(&path).context("make a path absolute")?;
    }
    if settings.ssh_port == Some(0) {
        settings.ssh_port = Some(free_port().context("find a free port for SSH")?);
    }
    qemu::prepare(&settings)?;
    let identity = tls::load_or_make(&settings.work_dir, listen.ip())?;

    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    listener.set_nonblocking(true).context("make the listener non-blocking")?;
    let address = listener.local_addr().context("read the listener's address")?;
    let (console, qmp) = (settings.work_dir.join(CONSOLE), settings.work_dir.join(VISITOR_SOCKET));
    let (ssh_port, slots) = (settings.ssh_port, settings.slots);
    let shown = Identity::of(&settings);
    let (machine, machine_task) = machine::start(settings);

    let service = redfish::service(shown, machine.clone(), access, slots);
    let http = Handle::new();
    let tls = RustlsConfig::from_config(identity.config);
    let server = axum_server::from_tcp_rustls(listener, tls)
        .context("take over the listener")?
        .handle(http.clone());
    Ok(Bmc {
        redfish_url: Url::parse(&format!("https://{address}")).context("make our own URL")?,
        certificate_sha256: identity.certificate_sha256,
        ssh_port,
        console,
        qmp,
        machine,
        machine_task,
        http,
        http_task: tokio::spawn(server.serve(service.into_make_service())),
    })
}

impl Bmc {
    /// Cuts the machine's power and ends the endpoint.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.machine.stop().await.context("stop the machine")?;
        self.machine_task.await.context("join the machine's task")?;
        self.http.graceful_shutdown(Some(DRAIN));
        self.http_task.await.context("join the listener's task")?.context("serve Redfish")
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
