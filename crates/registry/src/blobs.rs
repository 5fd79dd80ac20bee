// SPDX-License-Identifier: AGPL-3.0-or-later
//! Blobs and uploads as files. A blob exists once it is whole, verified and on the disk:
//! temp file → hash → fsync → rename → fsync(dir).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci::{Digest, Verifier};

/// The marker that makes the directory an OCI image layout.
const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

pub struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    pub fn open(dir: &Path) -> io::Result<Blobs> {
        for part in ["blobs/sha256", "blobs/sha512", "uploads"] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::write(dir.join("oci-layout"), LAYOUT)?;
        Ok(Blobs { dir: dir.to_owned() })
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// The file of an upload; the id is ours, a UUID.
    pub fn upload(&self, id: uuid::Uuid) -> PathBuf {
        self.dir.join("uploads").join(id.to_string())
    }

    /// Makes an upload the blob that it should be; `Err` with what it is instead.
    pub fn finish(&self, upload: &Path, digest: &Digest) -> io::Result<Result<(), Digest>> {
        let mut file = File::open(upload)?;
        let mut verifier = Verifier::new(digest.clone());
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => verifier.update(&buffer[..count]),
            }
        }
        if let Err(found) = verifier.verify() {
            return Ok(Err(found));
        }
        file.sync_all()?;
        let path = self.path(digest);
        fs::rename(upload, &path)?;
        let parent = path.parent().unwrap_or(&self.dir);
        File::open(parent)?.sync_all()?;
        Ok(Ok(()))
    }
}
