// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every path of the maintenance OS that the dispatcher uses. The published ones are in `recipe::run_dir`.

/// Used by the dispatcher only, mode 0700. It contains the attempt's token.
pub const PRIVATE_DIR: &str = "/run/shoal";
/// The medium that this system booted from, where dracut's live boot has mounted it.
pub const BOOT_MEDIUM_DIR: &str = "/run/initramfs/live";
/// The task medium, mounted read-only while it is read.
pub const MEDIUM_DIR: &str = "/run/shoal/task";
/// The attempt, and where it reports. A copy, because the medium may be ejected.
pub const ATTEMPT_FILE: &str = "/run/shoal/attempt.json";
/// The token of this boot's session.
pub const SESSION_FILE: &str = "/run/shoal/session";
/// One file for each failed unit, with its reason.
pub const FAILURE_DIR: &str = "/run/shoal/failure";
/// Network files of this boot. They take precedence over those of the image.
pub const NETWORK_DIR: &str = "/run/systemd/network";

pub const SYS_BLOCK: &str = "/sys/class/block";
pub const SYS_NET: &str = "/sys/class/net";
pub const PROC_NET: &str = "/proc/net";
pub const SYS_EFI: &str = "/sys/firmware/efi";
pub const SYS_DMI: &str = "/sys/class/dmi/id";
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The dispatcher's own unit, as it appears in `failed_step`.
pub const DISPATCHER_UNIT: &str = "shoal-dispatcher.service";
pub const AGENT_UNIT: &str = "shoal-agent.service";
/// The last service of every chain of steps.
pub const SUCCESS_UNIT: &str = "provision-success.service";
