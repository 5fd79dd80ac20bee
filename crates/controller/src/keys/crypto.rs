// SPDX-License-Identifier: AGPL-3.0-or-later
//! Hashes, random bytes and derived keys.

use anyhow::{anyhow, ensure};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// A key from a file's bytes, overwritten in memory when it is dropped.
pub fn key_of(bytes: &[u8]) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    ensure!(bytes.len() == key.len(), "a key has {} bytes, this has {}", key.len(), bytes.len());
    key.copy_from_slice(bytes);
    Ok(key)
}

/// Derives a key for one purpose: HMAC-SHA-256 of the words, one after the other.
pub fn derived(key: &[u8; 32], words: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut context =
        ring::hmac::Context::with_key(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key));
    words.iter().for_each(|word| context.update(word));
    let mut derived = Zeroizing::new([0; 32]);
    derived.copy_from_slice(context.sign().as_ref());
    derived
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

pub fn random_bytes<const N: usize>(random: &SystemRandom) -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| anyhow!("the kernel gives no random numbers"))?;
    Ok(bytes)
}
