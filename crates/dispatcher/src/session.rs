// SPDX-License-Identifier: AGPL-3.0-or-later
//! The session of this boot: a token that exists in RAM only, and to which the hello commits. The token on the task
//! medium is accepted for the hello only, because anybody who can read the traffic of the BMCs' network may read it.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::{places, private_file};

/// The token of this boot. The first of our processes that needs it creates it.
pub fn token() -> anyhow::Result<String> {
    token_in(Path::new(places::SESSION_FILE))
}

fn token_in(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Ok(token) => return Ok(token),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the kernel gives no randomness"))?;
    let token = format!("shp_session_{}", hex::encode(bytes));
    private_file::write(path, token.as_bytes())?;
    Ok(token)
}

/// The commitment to a token that is part of the hello.
pub fn commitment(token: &str) -> String {
    hex::encode(digest(&SHA256, token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_session_and_two_boots_have_two() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let token = |dir: &tempfile::TempDir| token_in(&dir.path().join("session")).unwrap();
        assert_eq!(token(&one), token(&one));
        assert_ne!(token(&one), token(&two));
        assert_eq!(token(&one).len(), "shp_session_".len() + 64);
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(one.path().join("session")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_commitment_is_the_hash_that_the_controller_looks_for() {
        // From NIST FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(commitment("abc"), abc);
    }
}
