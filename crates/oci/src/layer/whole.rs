// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks a whole layer in one pass: whether each of its members can be extracted. Memory is limited by the decoder's
//! window and the longest header. The reader must limit the time.

use std::io::{BufRead, BufReader, Read};

use super::compression::{Decoder, detect};
use super::entry::{Entry, MEMBERS_MAX};
use super::error::TarError;
use super::start::{HEAD_BYTES, check_head};
use super::tar::Archive;
use crate::Descriptor;
use crate::not_installable::NotInstallable;

/// Bytes that are decoded at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Reads `blob`, the layer's bytes, to its end. An error of `blob` itself is reported as a layer that cannot be read.
/// The caller, who owns the reader, can tell the two apart.
pub fn check_whole(mut blob: impl BufRead, layer: &Descriptor) -> Result<(), NotInstallable> {
    let unreadable =
        |error: std::io::Error| NotInstallable(format!("it cannot be decompressed: {error}"));
    let compression = detect(blob.fill_buf().map_err(unreadable)?, layer)?;
    let mut plain = Decoder::new(compression, blob).map_err(unreadable)?;
    let mut head = Vec::new();
    plain.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    let is_whole = (head.len() as u64) < HEAD_BYTES;
    check_head(&head, is_whole)?;
    let rest = BufReader::with_capacity(BUFFER_BYTES, plain.by_ref());
    check_members(&mut Archive::new(head.as_slice().chain(rest)))?;
    match plain.into_inner().fill_buf().map_err(unreadable)? {
        [] => Ok(()),
        _ => Err(NotInstallable("there are bytes after the compressed data".into())),
    }
}

fn check_members(archive: &mut Archive<impl BufRead>) -> Result<(), NotInstallable> {
    let mut members = 0;
    let mut last = String::new();
    let refused = |at: &str, error: TarError| {
        // Added because an error's text does not include its source.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        NotInstallable(format!("{at}{error}{}", cause.unwrap_or_default()))
    };
    loop {
        let member = match archive.next_member() {
            Ok(Some(member)) => member,
            Ok(None) => return Ok(()),
            Err(error) if last.is_empty() => return Err(refused("", error)),
            Err(error) => return Err(refused(&format!("after the member {last:?}: "), error)),
        };
        let name: String = String::from_utf8_lossy(&member.path).chars().take(200).collect();
        Entry::of(&member).map_err(|error| refused(&format!("the member {name:?}: "), error))?;
        members += 1;
        if members > MEMBERS_MAX {
            return Err(NotInstallable(format!("it has more than {MEMBERS_MAX} members")));
        }
        last = name;
    }
}
