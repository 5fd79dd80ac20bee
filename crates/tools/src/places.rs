// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every path outside the target that a tool looks at.

use std::path::PathBuf;

/// Where things are in a tool container.
#[derive(Debug, Clone)]
pub struct Places {
    pub run_dir: PathBuf,
    pub agent_socket: PathBuf,
    /// Only `image-check` and `image-linux` have it.
    pub pull_file: PathBuf,
    /// `image-check` writes it, `image-linux` reads it, no other step has it.
    pub checked_image: PathBuf,
    /// Device nodes are made here. It may not be on a `nodev` mount; `/dev` of a container is not.
    pub device_dir: PathBuf,
    /// The installed system's root is mounted here.
    pub target: PathBuf,
    /// The firmware's variables are mounted here: the container's `/sys` does not show them.
    pub efi_variables: PathBuf,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            run_dir: recipe::run_dir::DIR.into(),
            agent_socket: recipe::run_dir::AGENT_SOCKET.into(),
            checked_image: "/run/shoal-image/checked.json".into(),
            pull_file: recipe::run_dir::PULL_FILE.into(),
            device_dir: "/dev/shoal".into(),
            target: "/target".into(),
            efi_variables: "/dev/shoal-efivars".into(),
        }
    }
}
