// SPDX-License-Identifier: AGPL-3.0-or-later
//! Content digests (image-spec, descriptor.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// `sha256:` or `sha512:` and lower-case hex of the right length.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest; write sha256: and 64, or sha512: and 128, lower-case hex digits")]
pub struct InvalidDigest(String);

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes))))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.0[..6]
    }

    pub fn hex(&self) -> &str {
        &self.0[7..]
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        let length = match text.get(..7) {
            Some("sha256:") => 64,
            Some("sha512:") => 128,
            _ => 0,
        };
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if length == 0 || text.len() != 7 + length || !text.bytes().skip(7).all(is_hex) {
            return Err(InvalidDigest(text.chars().take(200).collect()));
        }
        Ok(Digest(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Digest, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashes a stream and compares the result with the expected digest.
pub struct Verifier {
    expected: Digest,
    hasher: Hasher,
}

/// Hashes a stream and returns its digest.
pub struct Hasher(State);

enum State {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    pub fn sha256() -> Hasher {
        Hasher(State::Sha256(sha2::Sha256::default()))
    }

    /// A hasher with the algorithm of this digest.
    pub fn like(digest: &Digest) -> Hasher {
        match digest.algorithm() {
            "sha512" => Hasher(State::Sha512(Box::default())),
            _ => Hasher::sha256(),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            State::Sha256(state) => format!("sha256:{}", hex::encode(state.finalize())),
            State::Sha512(state) => format!("sha512:{}", hex::encode(state.finalize())),
        })
    }
}

impl Verifier {
    pub fn new(expected: Digest) -> Verifier {
        let hasher = Hasher::like(&expected);
        Verifier { expected, hasher }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// `Ok` with the expected digest, or `Err` with the digest that was found instead.
    pub fn verify(self) -> Result<Digest, Digest> {
        let found = self.hasher.finish();
        if found == self.expected { Ok(self.expected) } else { Err(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_digests_are_digests() {
        let good = format!("sha256:{}", "a".repeat(64));
        assert_eq!(good.parse::<Digest>().unwrap().as_str(), good);
        assert!(format!("sha512:{}", "0".repeat(128)).parse::<Digest>().is_ok());
        for bad in [
            "",
            "sha256:",
            "sha256",
            "md5:00",
            "sha256:../../etc/passwd",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{}", "a".repeat(63)),
            &format!("sha256:{}/", "a".repeat(63)),
            &format!("sha512:{}", "a".repeat(64)),
            "é",
            "sha25é:",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    /// FIPS 180-2, appendices B.1 and C.1.
    const ABC: [&str; 2] = [
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
         2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ];

    #[test]
    fn a_stream_is_judged_at_its_end() {
        for abc in ABC {
            let abc: Digest = abc.parse().unwrap();
            let other = abc.as_str().replace('d', "e").parse().unwrap();
            for (expected, verdict) in [(abc.clone(), Ok(abc.clone())), (other, Err(abc))] {
                let mut verifier = Verifier::new(expected);
                verifier.update(b"ab");
                verifier.update(b"c");
                assert_eq!(verifier.verify(), verdict);
            }
        }
        assert_eq!(Digest::of(b"abc").as_str(), ABC[0]);
    }

    #[test]
    fn the_parts_of_a_digest_are_what_its_text_says() {
        for (text, algorithm) in ABC.into_iter().zip(["sha256", "sha512"]) {
            let digest: Digest = text.parse().unwrap();
            assert_eq!(digest.algorithm(), algorithm);
            assert_eq!(format!("{algorithm}:{}", digest.hex()), text);
            assert_eq!(digest.to_string(), text);
            assert_eq!(String::from(digest), text);
        }
    }
}
