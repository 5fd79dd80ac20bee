// SPDX-License-Identifier: AGPL-3.0-or-later
//! Small ISO 9660 images: a flat set of files, written reproducibly, readable on every system.
//!
//! Three directory trees share the file data: ISO 9660 level 1 (ECMA-119) for firmware and
//! installers, Rock Ridge (IEEE P1282) on top of it for Unix, Joliet for Windows. The same files
//! and volume give the same bytes on every host: no clock, no randomness, no host names.
//!
//! - `write`: writes an image; `read`: reads the files and the volume id of such an image;
//! - `index`: the positions of the files in any image;
//! - `names`: the names of a file in each tree; `bytes`: both-endian numbers and padding.

mod bytes;
mod index;
mod names;
mod read;
mod rock_ridge;
mod write;

pub use index::{BootImage, Extent, Index, IndexError, index};
pub use read::{Image, ReadError, read};
pub use write::{WriteError, to_vec};

/// A file in the root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The image's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// At most 32 characters of `A-Z`, `0-9`, `_`.
    pub id: String,
    /// The date of everything in the image, in seconds since 1970 (SOURCE_DATE_EPOCH).
    pub epoch_secs: u64,
}
