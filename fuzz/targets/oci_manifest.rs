// SPDX-License-Identifier: AGPL-3.0-or-later
//! Manifests and indexes: whatever comes, it is an error or a document whose parts can be named.
#![no_main]

use oci::{Manifest, media_type};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for kind in [media_type::MANIFEST, media_type::INDEX, media_type::DOCKER_MANIFEST] {
        let Ok(manifest) = Manifest::parse(bytes, kind) else { continue };
        for descriptor in manifest.blobs().chain(manifest.manifests.iter()) {
            assert!(descriptor.digest.to_string().contains(':'));
        }
    }
});
