// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-bmc-sim`: reads arguments, prints one line of JSON, then serves a BMC until a signal arrives.

mod fleet_command;
mod replay_command;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use bmc_sim::{Access, DiskBus, Firmware, Maker, Settings, Slots};
use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// The value that selects legacy BIOS in place of the file of a UEFI firmware.
const BIOS: &str = "bios";

/// A simulated BMC for tests and for a lab without hardware.
#[derive(Parser)]
#[command(name = "shoal-bmc-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One BMC that drives one QEMU machine.
    Qemu(Box<Qemu>),
    /// Many BMCs whose machines are scripts, each on an address of its own.
    Fleet(fleet_command::Arguments),
    /// One BMC that was recorded: a tree of resources over which sessions, media and power are played.
    Replay(replay_command::Arguments),
}

#[derive(clap::Args)]
struct Qemu {
    /// Where Redfish is served, over HTTPS.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Holds console.log, nvram.fd, bmc-ca.pem, qemu.log and qmp.sock.
    #[arg(long)]
    work_dir: PathBuf,
    /// The disk, a raw file; made when absent.
    #[arg(long)]
    disk: PathBuf,
    /// Size of a disk that is made, such as 512M or 8G.
    #[arg(long, default_value = "8G", value_parser = size)]
    disk_size: u64,
    #[arg(long, default_value = "virtio")]
    disk_bus: Bus,
    /// The virtual media that the BMC has.
    #[arg(long, default_value = "cd,cd")]
    slots: SlotLayout,
    /// Reads of this sector of 512 bytes fail with an input/output error; writes do not.
    #[arg(long, value_name = "SECTOR")]
    disk_bad_sector: Option<u64>,
    /// Whose machine this looks like. A Dell shows its serial (the service tag) in Redfish as SKU and the
    /// board's serial as SerialNumber. A Supermicro and a Lenovo have the slots and the refusals of the fleet's
    /// profiles `supermicro-x13` and `xcc-patch`: what can be ejected shows late, or the first slots take no URL.
    #[arg(long, default_value = "lab")]
    maker: MakerName,
    /// SMBIOS serial number of the system (type 1).
    #[arg(long)]
    serial: String,
    /// SMBIOS serial number of the board (type 2).
    #[arg(long)]
    board_serial: Option<String>,
    /// SMBIOS serial number of the chassis (type 3).
    #[arg(long)]
    chassis_serial: Option<String>,
    /// SerialNumber in Redfish, if not the maker's choice: a BMC that was moved to another board.
    #[arg(long)]
    redfish_serial: Option<String>,
    /// SKU in Redfish, if not the maker's choice.
    #[arg(long)]
    redfish_sku: Option<String>,
    /// SMBIOS UUID.
    #[arg(long)]
    uuid: Uuid,
    #[arg(long)]
    username: String,
    #[arg(long, env = "SHOAL_BMC_PASSWORD", hide_env_values = true)]
    password: String,
    /// Port on 127.0.0.1 that leads to the machine's port 22; 0 takes a free one.
    #[arg(long)]
    ssh_port: Option<u16>,
    /// The MAC address of the machine's only network card.
    #[arg(long, value_parser = mac)]
    mac: Option<String>,
    /// Memory in MiB.
    #[arg(long, default_value_t = 3072)]
    memory: u32,
    /// Processors of the machine.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// UEFI firmware; `bios`: legacy BIOS instead (SeaBIOS).
    #[arg(long, default_value = "/usr/share/OVMF/OVMF_CODE_4M.fd")]
    firmware: PathBuf,
    /// The empty NVRAM that belongs to the firmware.
    #[arg(long, default_value = "/usr/share/OVMF/OVMF_VARS_4M.fd")]
    firmware_vars: PathBuf,
    /// End when the process that started this one ends.
    #[arg(long)]
    exit_with_parent: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Bus {
    Virtio,
    Sata,
    Nvme,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum MakerName {
    Lab,
    Dell,
    Supermicro,
    Lenovo,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SlotLayout {
    #[value(name = "cd,cd")]
    TwoCds,
    #[value(name = "cd,usb")]
    CdAndUsb,
    #[value(name = "cd")]
    OneCd,
    /// No virtual media, but UEFI HTTP boot.
    #[value(name = "http")]
    Http,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // Colours are for people at a terminal, not for files.
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    match Arguments::parse().command {
        // The machine is killed when the thread that started it ends (see qemu.rs), so that thread must live as
        // long as the program. On a current-thread runtime it is this thread.
        Command::Qemu(arguments) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(*arguments))
        }
        Command::Fleet(arguments) => {
            tokio::runtime::Runtime::new()?.block_on(fleet_command::run(arguments))
        }
        Command::Replay(arguments) => {
            tokio::runtime::Runtime::new()?.block_on(replay_command::run(arguments))
        }
    }
}

async fn run(arguments: Qemu) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("heed SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("heed SIGINT")?;
    if arguments.exit_with_parent {
        let term = Some(rustix::process::Signal::TERM);
        rustix::process::set_parent_process_death_signal(term).context("follow the parent")?;
    }
    let settings = Settings {
        work_dir: arguments.work_dir,
        disk: arguments.disk,
        disk_bytes: arguments.disk_size,
        disk_bus: match arguments.disk_bus {
            Bus::Virtio => DiskBus::Virtio,
            Bus::Sata => DiskBus::Sata,
            Bus::Nvme => DiskBus::Nvme,
        },
        slots: match arguments.slots {
            SlotLayout::TwoCds => Slots::TwoCds,
            SlotLayout::CdAndUsb => Slots::CdAndUsb,
            SlotLayout::OneCd => Slots::OneCd,
            SlotLayout::Http => Slots::Http,
        },
        disk_bad_sector: arguments.disk_bad_sector,
        maker: match arguments.maker {
            MakerName::Lab => Maker::Lab,
            MakerName::Dell => Maker::Dell,
            MakerName::Supermicro => Maker::Supermicro,
            MakerName::Lenovo => Maker::Lenovo,
        },
        serial: arguments.serial,
        board_serial: arguments.board_serial,
        chassis_serial: arguments.chassis_serial,
        redfish_serial: arguments.redfish_serial,
        redfish_sku: arguments.redfish_sku,
        uuid: arguments.uuid,
        memory_mib: arguments.memory,
        cpus: arguments.cpus,
        ssh_port: arguments.ssh_port,
        mac: arguments.mac,
        firmware: match arguments.firmware.to_str() {
            Some(BIOS) => Firmware::Bios,
            _ => Firmware::Uefi { code: arguments.firmware, vars: arguments.firmware_vars },
        },
    };
    let access = Access { username: arguments.username, password: arguments.password };
    let bmc = bmc_sim::start(arguments.listen, settings, access).await?;
    println!(
        "{}",
        json!({
            "redfish_url": bmc.redfish_url,
            "certificate_sha256": bmc.certificate_sha256,
            "ssh_port": bmc.ssh_port,
            "console": bmc.console,
            "qmp": bmc.qmp,
        })
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    bmc.stop().await
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write 512M or 8G");
    let (digits, unit) = text.split_at(text.len().saturating_sub(1));
    let unit: u64 = match unit {
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(wrong()),
    };
    digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(wrong)
}

fn mac(text: &str) -> Result<String, String> {
    let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = text.split(':').collect();
    match parts.len() == 6 && parts.into_iter().all(is_pair) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a MAC address; write 52:54:00:12:34:56")),
    }
}
