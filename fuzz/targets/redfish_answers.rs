// SPDX-License-Identifier: AGPL-3.0-or-later
//! A BMC's answers, a zero byte between them: service root, manager, system, slots. Whatever they say,
//! what is read of them and shown of them is bounded.
#![no_main]

/// Of one answer in a transcript, with what stands for the rest.
const SHOWN_CHARS_MAX: usize = 4096 + 16;
const SLOTS_MAX: usize = 64;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let answers: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let Some((machine, shown)) = redfish::machine_of_answers(&answers) else { return };
    assert!(machine.slots.len() <= SLOTS_MAX);
    for slot in &machine.slots {
        let _ = (slot.takes_cd(), slot.takes_image());
    }
    for text in shown {
        assert!(text.chars().count() <= SHOWN_CHARS_MAX, "{}", text.len());
    }
});
