// SPDX-License-Identifier: AGPL-3.0-or-later
//! Disk space reserved for a full disk: a file that is removed when the database finds the disk full, so that running
//! jobs can end and record their true outcome. New jobs are refused until it exists again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use rusqlite::ErrorCode;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// The events of some hundred jobs, or the whole WAL between two checkpoints and the pages to which it is written.
pub const RESERVE_BYTES: u64 = 16 << 20;
/// The reserve is only created if this much space is left besides it; otherwise it would be removed again at once.
const BESIDE_BYTES: u64 = 8 << 20;
/// A start needs this much for new certificates and the WAL.
const START_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    dir: PathBuf,
    /// Whether the file exists.
    is_kept: Mutex<bool>,
}

impl Reserve {
    /// Creates the reserve if there is room; removes it if there is no room for a start.
    pub fn open(dir: &Path) -> io::Result<Reserve> {
        let path = dir.join("reserve");
        let is_kept = fs::metadata(&path).is_ok_and(|file| file.len() == RESERVE_BYTES);
        let reserve = Reserve { path, dir: dir.to_owned(), is_kept: Mutex::new(is_kept) };
        if is_kept && reserve.free()? < START_BYTES {
            reserve.release();
        }
        reserve.is_kept();
        Ok(reserve)
    }

    /// For a database without a disk.
    #[cfg(test)]
    pub fn none() -> Reserve {
        Reserve { path: PathBuf::new(), dir: PathBuf::new(), is_kept: Mutex::new(true) }
    }

    /// Whether there is room for new work; creates the reserve again if possible.
    pub fn is_kept(&self) -> bool {
        let mut is_kept = self.is_kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_kept && self.free().is_ok_and(|free| free >= RESERVE_BYTES + BESIDE_BYTES) {
            match self.make() {
                Ok(()) => {
                    tracing::info!("the reserve for a full disk is kept");
                    *is_kept = true;
                }
                Err(error) => tracing::error!(%error, "cannot make the reserve for a full disk"),
            }
        }
        *is_kept
    }

    /// Called for every error of the database: releases the reserve if the disk is full.
    pub fn meet(&self, error: &rusqlite::Error) {
        let is_full = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => true,
            // The WAL's index reports this error when it cannot grow.
            Some(ErrorCode::SystemIoFailure) => self.free().is_ok_and(|free| free < START_BYTES),
            _ => false,
        };
        if is_full {
            self.release();
        }
    }

    fn release(&self) {
        let mut is_kept = self.is_kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_kept {
            return;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::error!(
                    dir = %self.dir.display(),
                    "the disk is full: the reserve is released, and new jobs are refused; make room"
                );
                *is_kept = false;
            }
            Err(error) => tracing::error!(%error, "cannot release the reserve"),
        }
    }

    fn make(&self) -> io::Result<()> {
        let options = File::options().create(true).truncate(true).write(true).mode(0o600).clone();
        let file = options.open(&self.path)?;
        let made = match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES) {
            // A file system that cannot reserve space allocates it when it is written.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                io::copy(&mut io::Read::take(io::repeat(0), RESERVE_BYTES), &mut &file).map(drop)
            }
            other => other.map_err(io::Error::from),
        };
        if made.is_err() {
            fs::remove_file(&self.path)?;
        }
        made
    }

    fn free(&self) -> io::Result<u64> {
        let filesystem = statvfs(&self.dir)?;
        Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
    }
}
