// SPDX-License-Identifier: AGPL-3.0-or-later
//! Reading the bytes of a layer: its compression, the archive inside, and the members that can be extracted.
//!
//! ```text
//! bytes ─▶ compression ─▶ tar (pax) ─▶ entry
//!   └ start: only the first bytes         whole: all bytes
//! ```
//!
//! Callers pass readers; nothing here opens a file or a connection. The rules are shared by the registry, which
//! judges a layer when it is pushed, and the machine, which extracts it.

pub mod compression;
mod entry;
mod error;
mod pax;
mod start;
mod tar;
mod whole;

pub use compression::{Compression, Decoder, detect};
pub use entry::{Action, BadPath, Entry, MEMBERS_MAX, relative};
pub use error::TarError;
pub use start::{START_BYTES, check_start};
pub use tar::{Archive, Kind, Member};
pub use whole::check_whole;
