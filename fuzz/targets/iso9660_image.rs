// SPDX-License-Identifier: AGPL-3.0-or-later
//! Images: files lie within, and directories that contain themselves end.
#![no_main]

use std::io::Cursor;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = iso9660::read(bytes) {
        for file in image.files {
            assert!(file.bytes.len() <= bytes.len());
        }
    }
    if let Ok(index) = iso9660::index(&mut Cursor::new(bytes)) {
        assert!(index.files.windows(2).all(|pair| pair[0].start <= pair[1].start));
    }
});
