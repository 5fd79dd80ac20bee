// SPDX-License-Identifier: AGPL-3.0-or-later
//! References, repository names, tags and digests: what is taken is written back as it came.
#![no_main]

use oci::{Digest, Reference, Repository, Tag, TagOrDigest};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(!digest.hex().contains(|c: char| !c.is_ascii_hexdigit()));
    }
    if let Ok(name) = text.parse::<Repository>() {
        assert_eq!(name.to_string(), text);
        // It becomes a path and a part of a URL.
        assert!(!text.contains("..") && !text.starts_with('/') && !text.contains("//"));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.to_string(), text);
        assert!(!text.contains('/') && text != "." && text != "..");
    }
    if let Ok(either) = text.parse::<TagOrDigest>() {
        assert_eq!(either.to_string(), text);
    }
    if let Ok(reference) = text.parse::<Reference>() {
        let again: Reference =
            reference.to_string().parse().expect("what was taken is taken again");
        assert_eq!(again.to_string(), reference.to_string());
    }
});
