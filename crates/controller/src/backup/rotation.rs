// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-controller rotate-key`: seals the BMC passwords with a new `root.key`.
//!
//! ```text
//! root.key.new is written ─▶ one transaction seals every password with it ─▶ it becomes root.key
//! ```
//!
//! The valid key is the one that opens the stored passwords, so a crash at any point leaves no doubt: the next start,
//! or the next attempt, completes or undoes the change.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, ensure};
use ring::rand::SystemRandom;

use zeroize::Zeroizing;

use crate::files::write_durably;
use crate::keys::sealing::RootKey;
use crate::keys::{ATTEMPT_KEY, ROOT_KEY, random_bytes};
use crate::settings::RotateKeyArgs;
use crate::store::{self, sealed, sealed::Sealed};
use crate::time::now_ms;

/// Exists only while the key is changed.
pub const NEW_KEY: &str = "root.key.new";

pub fn rotate_key(RotateKeyArgs { data_dir }: &RotateKeyArgs) -> anyhow::Result<()> {
    ensure!(
        // Without an attempt key, attempts' tokens would still derive from the old root key.
        [store::FILE, ROOT_KEY, ATTEMPT_KEY].iter().all(|name| data_dir.join(name).exists()),
        "{} holds no controller that has been started",
        data_dir.display()
    );
    let _lock = store::lock(data_dir)?;
    settle(data_dir)?;
    let old = read(data_dir, ROOT_KEY)?;
    let bytes = random_bytes::<32>(&SystemRandom::new())?;
    write_durably(&data_dir.join(NEW_KEY), &bytes).context("write the new key")?;
    let new = RootKey::from_file(&bytes)?;
    let (mut resealed, mut lost) = (Vec::new(), Vec::new());
    for Sealed { serial, bmc_url, password } in sealed::all(data_dir)? {
        match old.open(&serial, &bmc_url, &password) {
            Ok(secret) => {
                let password = new.seal(&serial, &bmc_url, &secret)?;
                resealed.push(Sealed { serial, bmc_url, password });
            }
            Err(_) => lost.push(serial),
        }
    }
    sealed::replace(data_dir, &resealed, "rotate-key", now_ms())?;
    adopt(data_dir)?;
    println!("{}: {} BMC passwords have a new key", data_dir.display(), resealed.len());
    for serial in lost {
        println!(
            "server {serial}: its password did not open with the old key either; set it again"
        );
    }
    Ok(())
}

/// Completes or undoes an interrupted change of the key. Called before the keys are used.
pub fn settle(data_dir: &Path) -> anyhow::Result<()> {
    if !data_dir.join(NEW_KEY).exists() {
        return Ok(());
    }
    let new = read(data_dir, NEW_KEY)?;
    let opens = |it: &Sealed| new.open(&it.serial, &it.bmc_url, &it.password).is_ok();
    if sealed::all(data_dir)?.iter().any(opens) {
        tracing::info!("a change of the root key was cut off; it is done now");
        return adopt(data_dir);
    }
    tracing::info!("a change of the root key was cut off before it was done; the old one stays");
    fs::remove_file(data_dir.join(NEW_KEY)).context("remove the new key")?;
    sync(data_dir)
}

fn adopt(data_dir: &Path) -> anyhow::Result<()> {
    fs::rename(data_dir.join(NEW_KEY), data_dir.join(ROOT_KEY))
        .context("put the new key in place")?;
    sync(data_dir)
}

fn sync(data_dir: &Path) -> anyhow::Result<()> {
    Ok(File::open(data_dir)?.sync_all()?)
}

fn read(data_dir: &Path, name: &str) -> anyhow::Result<RootKey> {
    let bytes =
        Zeroizing::new(fs::read(data_dir.join(name)).with_context(|| format!("read {name}"))?);
    RootKey::from_file(&bytes).context(name.to_owned())
}
