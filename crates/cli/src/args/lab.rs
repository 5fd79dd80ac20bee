// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal lab`, as it is typed.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Run a controller and a virtual machine with a Redfish BMC until Ctrl-C or `lab down`.
    Up(LabUp),
    /// Stop the lab that was started with this directory; its disk and data stay.
    Down {
        /// The directory that was given to `lab up`.
        #[arg(long, default_value = "shoal-lab")]
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
pub struct LabUp {
    /// Keeps the controller's data, the machine's disk and all logs.
    #[arg(long, default_value = "shoal-lab")]
    pub dir: PathBuf,
    /// The maintenance OS that the machine is booted with [default: maintenance.iso beside this program, in
    /// ../images, in ../share/shoal, or in target/images of the current directory].
    #[arg(long, value_name = "FILE")]
    pub maintenance_iso: Option<PathBuf>,
    /// The OS image to put into the registry under the recipe's name [default: rootfs.tar.zst, looked for
    /// likewise; without it the lab starts and says how to push one].
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// The recipe of the command that is printed [default: recipe.yaml in the lab's directory, made of
    /// examples/linux/minimal.yaml and an SSH key].
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Serial number of the machine.
    #[arg(long, default_value = "LAB0001")]
    pub serial: String,
    /// Size of the machine's disk.
    #[arg(long, default_value = "8G")]
    pub disk_size: String,
    /// Virtual media of the machine's BMC: `cd,cd`, `cd,usb` or `cd`.
    #[arg(long, default_value = "cd,cd", value_parser = ["cd,cd", "cd,usb", "cd"])]
    pub slots: String,
    /// Memory of the machine in MiB.
    #[arg(long, default_value_t = 3072)]
    pub memory: u32,
    /// Port of the controller on 127.0.0.1.
    #[arg(long, default_value_t = 8443)]
    pub port: u16,
    /// Port on 127.0.0.1 that leads to the machine's SSH.
    #[arg(long, default_value_t = 2222)]
    pub ssh_port: u16,
}
