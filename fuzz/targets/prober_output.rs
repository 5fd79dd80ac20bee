// SPDX-License-Identifier: AGPL-3.0-or-later
//! What wipefs prints, with labels of strangers in it, and libblkid's debug output: never taken for less than it
//! says. A zero byte between the two.
#![no_main]

#[path = "../../crates/tools/src/partition/wipefs.rs"]
mod wipefs;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (json, debug) = text.split_once('\0').unwrap_or((text, text));
    if let Ok(signatures) = wipefs::signatures(json) {
        // Nothing is understood of nothing only.
        let json = json.trim();
        assert!(!signatures.is_empty() || json.is_empty() || json.starts_with('{'), "{json}");
        assert!(signatures.windows(2).all(|pair| pair[0] < pair[1]));
    }
    if let Ok(reads) = wipefs::reads(debug) {
        assert!(debug.contains("[SUBLKS") || debug.contains("ignore (size <= 1024)"));
        assert!(reads.len() <= debug.lines().count());
    }
});
