// SPDX-License-Identifier: AGPL-3.0-or-later
//! Restores a backup. The file is read once to verify all of it. A second pass writes it to a directory beside the
//! target, where open jobs are ended. One rename makes it the controller's directory: a crash before that leaves no
//! controller, and a crash after it a complete one.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use ring::digest::{Context as Hash, SHA256};

use super::write::{Hashed, sync_parent};
use super::{
    FORMAT, KEYS, MANIFEST, MANIFEST_BYTES_MAX, MANIFEST_SHA256, Manifest, Member, REGISTRY,
};
use crate::keys;
use crate::settings::RestoreArgs;
use crate::store;
use crate::time::now_ms;

pub fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let RestoreArgs { input, data_dir } = args;
    ensure_unused(data_dir)?;
    let manifest = verify(input).with_context(|| {
        format!("{} cannot be restored, and nothing was written", input.display())
    })?;
    let staging = Staging::beside(data_dir)?;
    extract(input, &manifest, &staging.0)?;
    // The attempts in the backup are over: their tokens must not be derivable again.
    keys::write_new_attempt_key(&staging.0)?;
    let why = format!("the controller was restored from a backup of {}", manifest.created_at);
    let suspended = store::backup::suspend(&staging.0, &why, now_ms())?;
    sync_all(&staging.0)?;
    fs::rename(&staging.0, data_dir)
        .with_context(|| format!("move the restored files to {}", data_dir.display()))?;
    sync_parent(data_dir)?;
    tell(&manifest, &suspended, data_dir);
    Ok(())
}

fn tell(manifest: &Manifest, suspended: &[String], data_dir: &Path) {
    println!("{}: restored as of {}", data_dir.display(), manifest.created_at);
    for id in suspended {
        println!("job {id}: ended as failed at `restore`; its machine was not touched");
    }
    if !manifest.has_keys {
        println!("without keys: set each server again, and trust the new CA and admin token");
    }
    if !manifest.has_artifacts {
        for artifact in &manifest.artifacts {
            println!("missing in the registry: {} {}", artifact.reference, artifact.digest);
        }
    }
}

fn ensure_unused(data_dir: &Path) -> anyhow::Result<()> {
    if data_dir.join(store::FILE).exists() {
        bail!("{} holds a controller; restore into a new directory", data_dir.display());
    }
    match fs::read_dir(data_dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => bail!("{} is not empty; restore into a new directory", data_dir.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look into {}", data_dir.display())),
    }
}

/// Reads the whole file, and returns its manifest once it is verified.
fn verify(input: &Path) -> anyhow::Result<Manifest> {
    let mut found = Vec::new();
    let (mut text, mut sum) = (Vec::new(), Vec::new());
    each_member(input, |name, bytes, reader| {
        match name {
            MANIFEST => {
                ensure!(bytes <= MANIFEST_BYTES_MAX, "its manifest is too long");
                reader.read_to_end(&mut text)?;
            }
            MANIFEST_SHA256 => {
                reader.take(64).read_to_end(&mut sum)?;
            }
            _ => {
                ensure!(text.is_empty(), "{name:?} comes after the manifest");
                found.push(copy_hashed(name, reader, &mut io::sink())?);
            }
        }
        Ok(())
    })?;
    ensure!(!text.is_empty() && !sum.is_empty(), "it has no manifest: it was cut off");
    ensure!(hex::encode(keys::sha256(&text)).as_bytes() == sum, "its manifest is damaged");
    let manifest: Manifest = serde_json::from_slice(&text).context("read its manifest")?;
    ensure!(
        manifest.format <= FORMAT && manifest.database_version <= store::backup::VERSION,
        "it was written by shoal-controller {}; restore it with that program or a newer one",
        manifest.program
    );
    for (found, said) in found.iter().zip(&manifest.members) {
        ensure!(found == said, "{} is damaged", said.name);
    }
    ensure!(found.len() == manifest.members.len(), "a part of it is missing");
    ensure!(found.iter().any(|member| member.name == store::FILE), "it has no database");
    let mut names: Vec<&str> = found.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    ensure!(names.len() == found.len(), "a file is in it twice");
    for name in names {
        ensure!(is_ours(name), "{name:?} is no file of a controller");
    }
    Ok(manifest)
}

/// Accepts only names that a backup writes: no archive member can escape from the new directory.
fn is_ours(name: &str) -> bool {
    let of_registry = || {
        let mut parts = name.strip_prefix(REGISTRY)?.strip_prefix("/blobs/")?.split('/');
        let (algorithm, hex, rest) = (parts.next()?, parts.next()?, parts.next());
        let is_digest = format!("{algorithm}:{hex}").parse::<oci::Digest>().is_ok();
        (is_digest && rest.is_none()).then_some(())
    };
    name == store::FILE
        || KEYS.contains(&name)
        || name.strip_prefix("registry/") == Some(registry::backup::INDEX)
        || of_registry().is_some()
}

/// Writes every member below `dir`, and verifies it again: the file may have changed since.
fn extract(input: &Path, manifest: &Manifest, dir: &Path) -> anyhow::Result<()> {
    let members: HashMap<&str, &Member> =
        manifest.members.iter().map(|member| (member.name.as_str(), member)).collect();
    each_member(input, |name, _, reader| {
        if [MANIFEST, MANIFEST_SHA256].contains(&name) {
            return Ok(());
        }
        let said = members.get(name).with_context(|| format!("{name:?} was not there before"))?;
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(dir);
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = copy_hashed(name, reader, &mut file)
            .with_context(|| format!("write {}", path.display()))?;
        ensure!(written == **said, "{name} changed while it was read");
        Ok(file.sync_all()?)
    })
}

fn each_member(
    input: &Path,
    mut look: impl FnMut(&str, u64, &mut dyn Read) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let file = File::open(input).with_context(|| format!("open {}", input.display()))?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries()? {
        let mut entry = entry.context("it is damaged or no backup")?;
        ensure!(entry.header().entry_type().is_file(), "it has something else than files in it");
        let name = String::from_utf8(entry.path_bytes().into_owned()).context("a name in it")?;
        let bytes = entry.size();
        look(&name, bytes, &mut entry)?;
    }
    Ok(())
}

fn copy_hashed(name: &str, from: &mut dyn Read, to: &mut dyn Write) -> anyhow::Result<Member> {
    let mut hashed = Hashed { from, hash: Hash::new(&SHA256), bytes: 0 };
    io::copy(&mut hashed, to)?;
    let sha256 = hex::encode(hashed.hash.finish());
    Ok(Member { name: name.into(), bytes: hashed.bytes, sha256 })
}

/// A directory beside the new one. Removed when this is dropped, unless it was renamed.
struct Staging(PathBuf);

impl Staging {
    fn beside(data_dir: &Path) -> anyhow::Result<Staging> {
        let mut name = data_dir.file_name().context("--data-dir names no directory")?.to_owned();
        name.push(".restoring");
        let path = data_dir.with_file_name(name);
        DirBuilder::new().mode(0o700).create(&path).with_context(|| {
            format!("create {}; one that an earlier restore left can be removed", path.display())
        })?;
        Ok(Staging(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Ok(()) => {}
            // It was renamed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(dir = %self.0.display(), %error, "cannot remove"),
        }
    }
}

/// Flushes the files and the names of a directory to the disk.
fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}
