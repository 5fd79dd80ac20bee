// SPDX-License-Identifier: AGPL-3.0-or-later
//! A lock on a directory that only one process at a time may use: a file named `lock` in it. The kernel releases the
//! lock when the process dies.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::OpenError;

const PAUSE: Duration = Duration::from_millis(20);

/// Locks the directory until the returned file is closed. Waits up to `patience` for another process to release it.
pub fn lock(dir: &Path, patience: Duration) -> Result<File, OpenError> {
    let file = File::create(dir.join("lock")).map_err(OpenError::Directory)?;
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked),
            Err(TryLockError::Error(error)) => return Err(OpenError::Directory(error)),
        }
    }
}
