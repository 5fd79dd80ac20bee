// SPDX-License-Identifier: AGPL-3.0-or-later
//! Errors of reading an archive: it cannot be read, is damaged, or is refused.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("the archive cannot be read")]
    Read(#[from] io::Error),
    #[error("the archive is damaged: {0} is malformed")]
    Malformed(&'static str),
    #[error("the archive is refused: {0}")]
    Refused(String),
}
