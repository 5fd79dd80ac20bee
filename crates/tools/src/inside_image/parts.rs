// SPDX-License-Identifier: AGPL-3.0-or-later
//! The arguments with which this program starts itself as another part of the cage: `shoal-tool inside-image PART ...`.

/// The subcommand. Only this program itself uses it.
pub const COMMAND: &str = "inside-image";
/// Keeps a new user namespace open while its users are set.
pub const HOLDER: &str = "hold";
pub const WARDEN: &str = "warden";
pub const CONFINE: &str = "confine";
