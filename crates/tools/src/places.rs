// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every path that a tool uses outside the target.

use std::path::PathBuf;

/// The paths in a tool container.
#[derive(Debug, Clone)]
pub struct Places {
    pub run_dir: PathBuf,
    pub agent_socket: PathBuf,
    /// Present only for `image-check` and `image-linux`.
    pub pull_file: PathBuf,
    /// `image-check` writes it and `image-linux` reads it. It is not present for other steps.
    pub checked_image: PathBuf,
    /// Device nodes are created here. The mount must not be `nodev`; `/dev` of a container is not.
    pub device_dir: PathBuf,
    /// The mount point of the installed system's root.
    pub target: PathBuf,
    /// The mount point of the firmware's variables: the container's `/sys` does not contain them.
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
