// SPDX-License-Identifier: AGPL-3.0-or-later
//! The data types of OCI: digests, references, manifests. Every input is parsed into them once, so that no untrusted
//! text becomes a path or a URL. Also the rules for what can be installed as a root filesystem, which the registry,
//! the controller and the machine share.
//!
//! - `digest`, `name`, `reference`, `manifest` (and `shape`): the data types;
//! - `installable`: the rules for a manifest and its configuration; `platform`: the machines that an image is for;
//! - `layer`: the rules for a layer's bytes: compression, archive, members.
//!
//! Pure. Sources: OCI image-spec 1.1, distribution-spec 1.1.

mod digest;
pub mod installable;
pub mod layer;
mod manifest;
mod name;
mod not_installable;
mod platform;
mod reference;
mod shape;

pub use digest::{Digest, Hasher, InvalidDigest, Verifier};
pub use manifest::{Descriptor, InvalidManifest, Manifest, ManifestKind, annotation, media_type};
pub use name::{
    InvalidRepository, InvalidTag, InvalidTagOrDigest, Repository, Tag, TagOrDigest, is_repository,
};
pub use not_installable::NotInstallable;
pub use platform::Platform;
pub use reference::{InvalidReference, Reference};

/// Largest manifest that is accepted (distribution-spec: at least 4 MiB).
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
