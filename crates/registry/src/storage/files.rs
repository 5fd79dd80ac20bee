// SPDX-License-Identifier: AGPL-3.0-or-later
//! Content as files. Paths are built from digests and generated ids, never from text of a client.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use oci::{Digest, Hasher, Repository};
use uuid::Uuid;

/// The marker that makes the directory an OCI image layout.
const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// The directories of `blobs/`.
pub const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];
const BUFFER: usize = 1 << 20;

pub struct Files {
    dir: PathBuf,
}

impl Files {
    pub fn open(dir: &Path) -> io::Result<Files> {
        for part in ["blobs/sha256", "blobs/sha512", "uploads", "upload-owners", "quarantine"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let files = Files { dir: dir.to_owned() };
        if fs::read(dir.join("oci-layout")).ok().as_deref() != Some(LAYOUT) {
            files.replace("oci-layout", LAYOUT)?;
        }
        for part in ["blobs", "."] {
            sync_dir(&dir.join(part))?;
        }
        Ok(files)
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// The file of an upload. Its name includes a hash of the repository, so that an upload belongs to one
    /// repository, and this survives a restart without a row in the index.
    pub fn upload(&self, repository: &Repository, id: Uuid) -> PathBuf {
        let owner = Digest::of(repository.as_str().as_bytes());
        self.dir.join("uploads").join(format!("{id}.{}", &owner.hex()[..16]))
    }

    pub fn uploads(&self) -> io::Result<fs::ReadDir> {
        fs::read_dir(self.dir.join("uploads"))
    }

    /// The directory of the files that record who began each upload.
    pub fn upload_owners(&self) -> PathBuf {
        self.dir.join("upload-owners")
    }

    /// A path for content that is written in one go and renamed.
    pub fn temporary(&self) -> PathBuf {
        self.dir.join("uploads").join(format!("{}.partial", Uuid::new_v4()))
    }

    /// Moves a file, whose bytes are already durable, to the place of this digest's content. Harmless when repeated
    /// after a crash: the same bytes get the same name.
    pub fn adopt(&self, file: &Path, digest: &Digest) -> io::Result<()> {
        fs::rename(file, self.blob(digest))?;
        self.sync_blobs(digest.algorithm())
    }

    pub fn sync_blobs(&self, algorithm: &str) -> io::Result<()> {
        sync_dir(&self.dir.join("blobs").join(algorithm))
    }

    /// Removes content if it exists.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_file(self.blob(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Moves content out of the way, and keeps its bytes for inspection.
    pub fn quarantine(&self, digest: &Digest) -> io::Result<PathBuf> {
        let name = format!("{}-{}", digest.algorithm(), digest.hex());
        let place = self.dir.join("quarantine").join(name);
        fs::rename(self.blob(digest), &place)?;
        sync_dir(&self.dir.join("quarantine"))?;
        self.sync_blobs(digest.algorithm())?;
        Ok(place)
    }

    /// Every digest that has a file.
    pub fn digests(&self, algorithm: &str) -> io::Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for entry in fs::read_dir(self.dir.join("blobs").join(algorithm))? {
            let name = entry?.file_name();
            // A file whose name is not a digest is not ours.
            if let Some(name) = name.to_str()
                && let Ok(digest) = format!("{algorithm}:{name}").parse()
            {
                digests.push(digest);
            }
        }
        Ok(digests)
    }

    /// Replaces a small file in the registry's directory atomically: a reader sees the old or the new content.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let partial = self.dir.join(format!("{name}.partial"));
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        fs::rename(&partial, self.dir.join(name))
    }
}

/// Writes bytes durably to a new file.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Hashes a reader's data to its end. Returns the number of bytes.
pub fn hash(mut reader: impl Read, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(size),
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
