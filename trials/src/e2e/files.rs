// SPDX-License-Identifier: AGPL-3.0-or-later
//! Files of the cases: disk images and blobs, hashes that show whether they changed, keys to log in with, and the
//! first example recipe.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use crate::process::succeed;

/// Makes a disk that an ordinary system would check, mount and swap on.
pub fn tempting(disk: &Path) -> anyhow::Result<()> {
    let sgdisk = ["--new=1:2048:+512M", "--new=2:0:+64M", "--typecode=2:8200"];
    succeed(Command::new("sgdisk").args(sgdisk).arg(disk))?;
    // Partition 1 begins at sector 2048.
    let ext4 = ["-q", "-L", "root", "-E", "offset=1048576"];
    succeed(Command::new("mkfs.ext4").args(ext4).arg(disk).arg("512M"))?;
    // mkswap has no option for an offset, so its header is made in another file.
    let swap = disk.with_extension("swap");
    fs::File::create(&swap)?.set_len(64 << 20)?;
    succeed(Command::new("mkswap").arg(&swap))?;
    let header = fs::read(&swap)?;
    fs::remove_file(&swap)?;
    fs::File::options().write(true).open(disk)?.write_all_at(&header, 513 << 20)?;
    Ok(())
}

pub fn largest_file(dir: &Path) -> anyhow::Result<PathBuf> {
    let mut open = vec![dir.to_owned()];
    let mut largest = None;
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let data = entry.metadata()?;
            if data.is_dir() {
                open.push(entry.path());
            } else if data.is_file() {
                largest = largest.max(Some((data.len(), entry.path())));
            }
        }
    }
    largest.map(|(_, path)| path).context("there is no file")
}

/// Flips a bit in the middle of the file.
pub fn flip_a_bit(path: &Path) -> anyhow::Result<()> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let middle = file.metadata()?.len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle)?;
    file.write_all_at(&[byte[0] ^ 1], middle)?;
    Ok(())
}

/// Returns the SHA-256 over each MiB of a disk image that is not all zeros, with its offset.
pub fn hash(path: &Path) -> anyhow::Result<Vec<u8>> {
    const BLOCK: usize = 1 << 20;
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let (mut block, zeros) = (Vec::with_capacity(BLOCK), vec![0; BLOCK]);
    let mut hasher = Sha256::new();
    for number in 0_u64.. {
        block.clear();
        if Read::by_ref(&mut file).take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            break;
        }
        if block[..] != zeros[..block.len()] {
            hasher.update(number.to_le_bytes());
            hasher.update(&block);
        }
    }
    Ok(hasher.finalize().to_vec())
}

/// Makes a key pair for this run; returns the private key's file and the public key's line.
pub fn ssh_key(dir: &Path) -> anyhow::Result<(PathBuf, String)> {
    let key = dir.join("id_ed25519");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f"])
        .arg(&key)
        .status()
        .context("run ssh-keygen")?;
    ensure!(made.success(), "ssh-keygen failed");
    let public = fs::read_to_string(key.with_extension("pub"))?;
    Ok((key, public.trim().to_owned()))
}

/// Writes the first example to `dir`, with the given key and the host name of these tests.
pub fn example(root: &Path, public_key: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let file = root.join("examples/linux/minimal.yaml");
    let mut text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let key = text.lines().map(str::trim).find_map(|line| line.strip_prefix("- ssh-"));
    let key = key.map(|rest| format!("ssh-{rest}")).context("the example has no SSH key")?;
    for (from, to) in [(&*key, public_key), ("hostname: web-1", "hostname: shoal-e2e")] {
        ensure!(text.matches(from).count() == 1, "the example does not have {from:?} once");
        text = text.replace(from, to);
    }
    let file = dir.join("recipe.yaml");
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}
