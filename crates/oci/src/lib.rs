// SPDX-License-Identifier: AGPL-3.0-or-later
//! The words of OCI: digests, references, manifests. Parsed once at every border, so that nothing a
//! stranger wrote becomes a path or a URL before it is one of these types. And the rules for what can be
//! installed as a root filesystem: the registry, the controller and the machine ask them here.
//!
//! - `digest`, `name`, `reference`, `manifest` (and `shape`): the words;
//! - `installable`: the rules that a manifest, an index and a configuration tell of; `platform`: for which machine;
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

/// Largest manifest that is taken (distribution-spec: at least 4 MiB).
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
