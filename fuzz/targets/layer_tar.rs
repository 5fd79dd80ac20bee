// SPDX-License-Identifier: AGPL-3.0-or-later
//! Layers: a hostile archive is an error, and its members' data stays within what was read.
#![no_main]

mod tar_headers;

use oci::layer::{Archive, Kind};
use tar_headers::summed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bytes = summed(bytes);
    let mut archive = Archive::new(bytes.as_slice());
    let mut read = 0;
    while let Ok(Some(member)) = archive.next_member() {
        let from = read;
        while let Ok(data) = archive.data() {
            let length = data.len();
            if length == 0 {
                break;
            }
            read += length;
            archive.consume(length);
        }
        assert!(member.kind == Kind::File || read == from, "a {:?} with data", member.kind);
    }
    assert!(read <= bytes.len(), "{read} bytes came out of {}", bytes.len());
});
