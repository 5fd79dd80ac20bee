// SPDX-License-Identifier: AGPL-3.0-or-later
//! Encryption of BMC passwords: ChaCha20-Poly1305 with a key derived from `root.key`. The server and the endpoint are
//! authenticated too, so a sealed password cannot be opened in the row of another server.
//!
//! ```text
//! nonce (12 bytes) · ciphertext · tag (16 bytes)
//! ```

use anyhow::anyhow;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::SystemRandom;
use zeroize::Zeroizing;

use super::crypto::{derived, key_of, random_bytes};

const PURPOSE: &[u8] = b"shoal bmc password v1";

/// The content of `root.key`.
pub struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    pub fn from_file(bytes: &[u8]) -> anyhow::Result<RootKey> {
        Ok(RootKey(key_of(bytes)?))
    }

    pub fn seal(&self, serial: &str, endpoint: &str, secret: &str) -> anyhow::Result<Vec<u8>> {
        let nonce = random_bytes::<NONCE_LEN>(&SystemRandom::new())?;
        let mut sealed = secret.as_bytes().to_vec();
        self.password_key()?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(bound_to(serial, endpoint)),
                &mut sealed,
            )
            .map_err(|_| anyhow!("seal the password of {serial}"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    pub fn open(
        &self,
        serial: &str,
        endpoint: &str,
        sealed: &[u8],
    ) -> anyhow::Result<Zeroizing<String>> {
        let broken =
            || anyhow!("the stored BMC password of {serial} does not open; set the server again");
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(broken)?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let open = self
            .password_key()?
            .open_in_place(nonce, Aad::from(bound_to(serial, endpoint)), &mut sealed)
            .map_err(|_| broken())?;
        std::str::from_utf8(open).map(|text| text.to_owned().into()).map_err(|_| broken())
    }

    fn password_key(&self) -> anyhow::Result<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*derived(&self.0, &[PURPOSE]))
            .map_err(|_| anyhow!("derive the password key"))?;
        Ok(LessSafeKey::new(key))
    }
}

fn bound_to(serial: &str, endpoint: &str) -> Vec<u8> {
    format!("{serial}\n{endpoint}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_opens_where_it_was_sealed_and_nowhere_else() {
        let key = |byte: u8| RootKey::from_file(&[byte; 32]).unwrap();
        let sealed = key(1).seal("SN1", "https://bmc", "secret").unwrap();
        assert_eq!(key(1).open("SN1", "https://bmc", &sealed).unwrap().as_str(), "secret");
        let again = key(1).seal("SN1", "https://bmc", "secret").unwrap();
        assert_ne!(sealed, again, "a nonce of its own");
        let opens = |serial: &str, endpoint: &str, sealed: &[u8]| {
            key(1).open(serial, endpoint, sealed).map_err(|error| error.to_string())
        };
        let words =
            Err("the stored BMC password of SN1 does not open; set the server again".into());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(opens("SN1", "https://bmc", &changed), words, "at {at}");
            assert_eq!(opens("SN1", "https://bmc", &sealed[..at]), words, "to {at}");
        }
        assert!(opens("SN2", "https://bmc", &sealed).is_err());
        assert!(opens("SN1", "https://other", &sealed).is_err());
        assert!(key(2).open("SN1", "https://bmc", &sealed).is_err());
        assert!(RootKey::from_file(&[1; 31]).is_err());
    }
}
