// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-bmc-sim replay`: prints one line of JSON, then serves a recorded BMC until a signal arrives.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use bmc_sim::Access;
use bmc_sim::replay::{self, Settings};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

#[derive(clap::Args)]
pub struct Arguments {
    /// A directory of DMTF's Redfish-Mockup-Creator, or a JSON file {path: resource}, such as
    /// `shoal server capture` writes.
    #[arg(long, value_name = "DIR|FILE")]
    tree: PathBuf,
    /// Where Redfish is served, over HTTPS.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long, default_value = "admin")]
    username: String,
    #[arg(
        long,
        env = "SHOAL_BMC_PASSWORD",
        hide_env_values = true,
        default_value = "replay-password"
    )]
    password: String,
    /// Holds the certificate, so that a pin survives a restart.
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// The image that machines are given: with it they start from their media, as scripts, and talk to the
    /// controller. Without it a reset changes the power state only.
    #[arg(long)]
    maintenance_iso: Option<PathBuf>,
    /// End when the process that started this one ends.
    #[arg(long)]
    exit_with_parent: bool,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("heed SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("heed SIGINT")?;
    if arguments.exit_with_parent {
        let term = Some(rustix::process::Signal::TERM);
        rustix::process::set_parent_process_death_signal(term).context("follow the parent")?;
    }
    let Arguments { username, password, .. } = &arguments;
    let access = Access { username: username.clone(), password: password.clone() };
    let bmc = replay::start(Settings {
        listen: arguments.listen,
        tree: arguments.tree,
        access,
        work_dir: arguments.work_dir,
        maintenance_iso: arguments.maintenance_iso,
    })
    .await?;
    println!(
        "{}",
        json!({
            "redfish_url": bmc.redfish_url,
            "certificate_sha256": bmc.certificate_sha256,
            "username": arguments.username,
            "resources": bmc.resources,
            "systems": bmc.systems,
        })
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    bmc.stop().await
}
