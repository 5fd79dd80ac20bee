// SPDX-License-Identifier: AGPL-3.0-or-later
//! `Range` and `Content-Range`: a part is never empty and never outside.
#![no_main]

// By its file: the chunks of uploads are private to the registry.
#[path = "../../crates/registry/src/range.rs"]
mod range;

use range::{Wanted, chunk, wanted};

libfuzzer_sys::fuzz_target!(|input: (u64, &str)| {
    let (size, header) = input;
    if let Wanted::Part { start, end } = wanted(Some(header), size) {
        assert!(start < end && end <= size, "{start}..{end} of {size}");
    }
    if let Some((start, end)) = chunk(header) {
        assert!(start < end);
    }
});
