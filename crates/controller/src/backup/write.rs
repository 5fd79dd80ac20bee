// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writes a backup. Only reads the data directory and takes no lock: a controller may serve meanwhile.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use ring::digest::{Context as Hash, SHA256};

use super::{Artifact, FORMAT, KEYS, MANIFEST, MANIFEST_SHA256, Manifest, Member, REGISTRY};
use crate::backup::rotation::NEW_KEY;
use crate::keys::ROOT_KEY;
use crate::settings::BackupArgs;
use crate::store;

pub fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let BackupArgs { data_dir, output, .. } = args;
    ensure!(
        data_dir.join(store::FILE).exists(),
        "{} holds no controller: there is no {} in it",
        data_dir.display(),
        store::FILE
    );
    if output.exists() {
        bail!("{} is there already; give another --output or remove it", output.display());
    }
    let partial = Partial::beside(output, "partial")?;
    let manifest = write(args, &partial, output)
        .with_context(|| format!("write the backup {}", output.display()))?;
    fs::rename(&partial.0, output)?;
    sync_parent(output)?;
    println!("{}: {} files", output.display(), manifest.members.len());
    if !manifest.has_keys {
        println!("without keys: after a restore each BMC's password must be set again");
    }
    if !manifest.has_artifacts {
        println!("without the content of {} tags of the registry", manifest.artifacts.len());
    }
    Ok(())
}

fn write(args: &BackupArgs, partial: &Partial, output: &Path) -> anyhow::Result<Manifest> {
    let file = File::options().write(true).open(&partial.0)?;
    let mut archive = Archive { tar: tar::Builder::new(file), members: Vec::new() };
    let copied = Partial::beside(output, "database")?;
    let root_key = || fs::read(args.data_dir.join(ROOT_KEY));
    let key_before = root_key()?;
    store::backup::copy(&args.data_dir, &copied.0)?;
    archive.add(store::FILE, &copied.0)?;
    if args.with_keys {
        for name in KEYS {
            archive.add(name, &args.data_dir.join(name))?;
        }
        ensure!(
            root_key()? == key_before && !args.data_dir.join(NEW_KEY).exists(),
            "the root key changed meanwhile; take the backup again"
        );
    }
    let artifacts = add_registry(args, output, &mut archive).context("copy the registry")?;
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").into(),
        database_version: store::backup::version(&copied.0)?,
        created_at: jiff::Timestamp::now(),
        has_keys: args.with_keys,
        has_artifacts: args.with_artifacts,
        members: std::mem::take(&mut archive.members),
        artifacts,
    };
    let text = serde_json::to_vec_pretty(&manifest)?;
    archive.add_bytes(MANIFEST, &text)?;
    archive.add_bytes(MANIFEST_SHA256, hex::encode(crate::keys::sha256(&text)).as_bytes())?;
    archive.tar.into_inner()?.sync_all()?;
    Ok(manifest)
}

/// Adds the registry's content if requested, and returns its tags in any case.
fn add_registry(
    args: &BackupArgs,
    output: &Path,
    archive: &mut Archive,
) -> anyhow::Result<Vec<Artifact>> {
    let dir = args.data_dir.join(REGISTRY);
    let index = Partial::beside(output, "index")?;
    registry::backup::copy_index(&dir, &index.0)?;
    if args.with_artifacts {
        archive.add(&format!("{REGISTRY}/{}", registry::backup::INDEX), &index.0)?;
        for file in registry::backup::contents(&index.0)? {
            // A collection may remove contents that the copied index still names.
            archive
                .add(&format!("{REGISTRY}/{}", file.display()), &dir.join(&file))
                .context("an artifact went away meanwhile; take the backup again")?;
        }
    }
    let tags = registry::backup::tags(&index.0)?;
    let artifact = |tag: registry::backup::Tagged| Artifact {
        reference: format!("{}:{}", tag.repository, tag.tag),
        digest: tag.digest,
    };
    Ok(tags.into_iter().map(artifact).collect())
}

struct Archive {
    tar: tar::Builder<File>,
    members: Vec<Member>,
}

impl Archive {
    fn add(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let bytes = file.metadata()?.len();
        let mut hashed = Hashed { from: file.take(bytes), hash: Hash::new(&SHA256), bytes: 0 };
        self.tar
            .append_data(&mut header(bytes), name, &mut hashed)
            .with_context(|| format!("store {}", path.display()))?;
        ensure!(hashed.bytes == bytes, "{} became shorter while it was read", path.display());
        let sha256 = hex::encode(hashed.hash.finish());
        self.members.push(Member { name: name.into(), bytes, sha256 });
        Ok(())
    }

    fn add_bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.tar.append_data(&mut header(bytes.len() as u64), name, bytes)
    }
}

fn header(bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o600);
    header
}

/// Hashes everything that is read through it.
pub(super) struct Hashed<R> {
    pub from: R,
    pub hash: Hash,
    pub bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// A file beside the output. Removed when this is dropped, unless it was renamed.
struct Partial(PathBuf);

impl Partial {
    fn beside(output: &Path, what: &str) -> anyhow::Result<Partial> {
        let mut name = output.file_name().context("--output names no file")?.to_owned();
        name.push(format!(".{}.{what}", std::process::id()));
        let path = output.with_file_name(name);
        // It contains recipes and keys.
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.flush())
            .with_context(|| format!("create {}", path.display()))?;
        Ok(Partial(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Ok(()) => {}
            // It was renamed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = %self.0.display(), %error, "cannot remove"),
        }
    }
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
