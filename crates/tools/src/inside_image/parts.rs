// SPDX-License-Identifier: AGPL-3.0-or-later
//! The words by which this program starts itself in another part of the cage: `shoal-tool inside-image PART ...`.

/// For ourselves alone.
pub const COMMAND: &str = "inside-image";
/// Holds a new user namespace open while its users are set.
pub const HOLDER: &str = "hold";
pub const WARDEN: &str = "warden";
pub const CONFINE: &str = "confine";
