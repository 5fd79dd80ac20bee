// SPDX-License-Identifier: AGPL-3.0-or-later
//! The bytes of a layer: how they are compressed, the archive inside, and which members can be extracted.
//!
//! ```text
//! bytes ─▶ compression ─▶ tar (pax) ─▶ entry
//!   └ start: the first bytes alone        whole: all of them
//! ```
//!
//! Readers are given; nothing here opens a file or a connection. One definition for the registry, which judges a
//! layer when it is pushed, and the machine, which extracts it.

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
