// SPDX-License-Identifier: AGPL-3.0-or-later
//! The signature of a task medium. `SHA256SUMS` lists all its other files, and `SHA256SUMS.sig` contains the 64 bytes
//! of an Ed25519 signature (RFC 8032) over that list. The public key does not come with the task medium: the controller
//! puts it into the maintenance medium while it serves that ([`KEY_FILE`]). So a machine accepts a task only from the
//! controller that it was booted by.
//!
//! To check it by hand, in a directory with the files of both media:
//!
//! ```text
//! sha256sum --check SHA256SUMS
//! openssl pkeyutl -verify -pubin -inkey controller.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
//! ```

use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::File;

pub const SUMS_FILE: &str = "SHA256SUMS";
pub const SIGNATURE_FILE: &str = "SHA256SUMS.sig";
/// The controller's key within the maintenance medium. The image has a file of zeros there; the controller serves
/// a PEM file in its place.
pub const KEY_FILE: &str = "shoal/controller.pem";
/// Length of that file: one optical sector.
pub const KEY_FILE_BYTES: usize = 2048;

/// Length of a SHA-256 in hexadecimal digits.
const HEX_CHARS: usize = 64;
const PEM_LABEL: &str = "PUBLIC KEY";
/// The bytes before the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo` (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// The controller's private key for its task media.
pub struct Signer(Ed25519KeyPair);

/// The public key that verifies the task media of one controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// A task medium is not as the controller made it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("{0} is not on it: it is not signed")]
    Unsigned(&'static str),
    #[error("{SIGNATURE_FILE} is not a signature by the controller that this system was booted by")]
    Foreign,
    #[error("{0} is not what the signed {SUMS_FILE} says")]
    Changed(String),
    #[error("{0} is in the signed {SUMS_FILE}, but not on it")]
    Absent(String),
    #[error("a file is on it twice")]
    Doubled,
}

/// The key file does not contain a valid key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

impl Signer {
    /// Derives the key from 32 secret bytes. The same bytes give the same key.
    pub fn from_seed(seed: &[u8; 32]) -> Signer {
        Signer(Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes"))
    }

    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Adds the list and its signature to the files. Equal files give equal signatures.
    pub fn signed(&self, mut files: Vec<File>) -> Vec<File> {
        let sums = sums(&files.iter().collect::<Vec<_>>()).into_bytes();
        let signature = self.0.sign(&sums).as_ref().to_vec();
        files.push(File { name: SUMS_FILE.into(), bytes: sums });
        files.push(File { name: SIGNATURE_FILE.into(), bytes: signature });
        files
    }
}

impl PublicKey {
    /// A PEM file of [`KEY_FILE_BYTES`], padded with newlines.
    pub fn to_file(self) -> Vec<u8> {
        let spki = [&SPKI_PREFIX[..], &self.0].concat();
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let mut file = pem::encode_config(&pem::Pem::new(PEM_LABEL, spki), config).into_bytes();
        file.resize(KEY_FILE_BYTES, b'\n');
        file
    }

    /// Reads the key from such a file.
    pub fn from_file(file: &[u8]) -> Result<PublicKey, KeyError> {
        if file.iter().all(|byte| *byte == 0) {
            return Err(KeyError(
                "it is empty: no controller served this medium, or an older one".into(),
            ));
        }
        let pem =
            pem::parse(file).map_err(|error| KeyError(format!("it is no PEM file: {error}")))?;
        let key = pem.contents().strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
        match key {
            Some(key) if pem.tag() == PEM_LABEL => Ok(PublicKey(key)),
            _ => Err(KeyError(format!("its {} is not an Ed25519 public key", pem.tag()))),
        }
    }

    /// Checks that these are all files of a medium that this key signed, unchanged.
    pub fn verify(&self, files: &[File]) -> Result<(), SignatureError> {
        let find = |name| {
            let file = files.iter().find(|file| file.name == name);
            file.map(|file| file.bytes.as_slice()).ok_or(SignatureError::Unsigned(name))
        };
        let (listed, signature) = (find(SUMS_FILE)?, find(SIGNATURE_FILE)?);
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        key.verify(listed, signature).map_err(|_| SignatureError::Foreign)?;
        let present: Vec<&File> = files.iter().filter(|file| !is_signature(file)).collect();
        let found = sums(&present);
        if found.as_bytes() == listed {
            return Ok(());
        }
        let listed = String::from_utf8_lossy(listed);
        let is_listed = |file: &&&File| listed.lines().any(|line| line == sum(file));
        let is_found = |line: &&str| found.lines().any(|found| found == *line);
        Err(match present.iter().find(|file| !is_listed(file)) {
            Some(file) => SignatureError::Changed(file.name.clone()),
            None => match listed.lines().find(|line| !is_found(line)) {
                Some(line) => SignatureError::Absent(line.chars().skip(HEX_CHARS + 2).collect()),
                None => SignatureError::Doubled,
            },
        })
    }
}

fn is_signature(file: &File) -> bool {
    file.name == SUMS_FILE || file.name == SIGNATURE_FILE
}

/// The list in the format of `sha256sum`, sorted by name. Two files with the same name give two lines.
fn sums(files: &[&File]) -> String {
    let mut files = files.to_vec();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    files.into_iter().flat_map(|file| [sum(file), "\n".into()]).collect()
}

/// The line of one file.
fn sum(file: &File) -> String {
    format!("{}  {}", hex::encode(digest(&SHA256, &file.bytes)), file.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> File {
        File { name: name.into(), bytes: bytes.to_vec() }
    }

    fn signed(seed: u8) -> Vec<File> {
        let files = vec![file("recipe.json", b"{}"), file("attempt.json", b"{\"a\":1}")];
        Signer::from_seed(&[seed; 32]).signed(files)
    }

    #[test]
    fn what_is_signed_is_the_same_each_time_and_as_other_programs_write_it() {
        let files = signed(1);
        assert_eq!(files, signed(1));
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["recipe.json", "attempt.json", SUMS_FILE, SIGNATURE_FILE]);
        // From `sha256sum attempt.json recipe.json`.
        let sums = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862  attempt.json\n\
                    44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a  recipe.json\n";
        assert_eq!(String::from_utf8_lossy(&files[2].bytes), sums);
        assert_eq!(files[3].bytes.len(), 64);
    }

    #[test]
    fn a_medium_is_taken_as_it_was_signed_and_in_no_other_way() {
        let key = Signer::from_seed(&[1; 32]).public_key();
        let changed = |change: &dyn Fn(&mut Vec<File>)| {
            let mut files = signed(1);
            change(&mut files);
            key.verify(&files)
        };
        let in_other_order = changed(&|files| files.reverse());
        assert_eq!((changed(&|_| ()), in_other_order), (Ok(()), Ok(())));
        let is_changed = |name: &str| Err(SignatureError::Changed(name.into()));
        let evil = || file("attempt.json", b"{}");
        for (found, expected) in [
            (changed(&|files| files[0].bytes.push(b' ')), is_changed("recipe.json")),
            (changed(&|files| files[1].name = "ATTEMPT.JSON".into()), is_changed("ATTEMPT.JSON")),
            (changed(&|files| files.push(file("KS.CFG", b""))), is_changed("KS.CFG")),
            // A lookup by name returns either the first or the last of two files.
            (changed(&|files| files.insert(0, evil())), is_changed("attempt.json")),
            (changed(&|files| files.push(evil())), is_changed("attempt.json")),
            (changed(&|files| files.push(files[0].clone())), Err(SignatureError::Doubled)),
            (
                changed(&|files| drop(files.remove(0))),
                Err(SignatureError::Absent("recipe.json".into())),
            ),
            (changed(&|files| drop(files.remove(2))), Err(SignatureError::Unsigned(SUMS_FILE))),
            (
                changed(&|files| drop(files.remove(3))),
                Err(SignatureError::Unsigned(SIGNATURE_FILE)),
            ),
            (changed(&|files| files[3].bytes[0] ^= 1), Err(SignatureError::Foreign)),
            (changed(&|files| files[3].bytes.clear()), Err(SignatureError::Foreign)),
            // The list changes with its file, the signature does not.
            (
                changed(&|files| {
                    files[0].bytes.push(b' ');
                    files[2].bytes = sums(&[&files[0], &files[1]]).into_bytes();
                }),
                Err(SignatureError::Foreign),
            ),
            (key.verify(&signed(2)), Err(SignatureError::Foreign)),
            (key.verify(&[]), Err(SignatureError::Unsigned(SUMS_FILE))),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_key_travels_in_one_sector_and_nothing_else_is_one() {
        let key = Signer::from_seed(&[1; 32]).public_key();
        let sector = key.to_file();
        assert_eq!(sector.len(), KEY_FILE_BYTES);
        assert_eq!(PublicKey::from_file(&sector), Ok(key));
        let text = String::from_utf8(sector).unwrap();
        // From `openssl pkey`, for the private key of these 32 bytes.
        let pem = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=\n\
                   -----END PUBLIC KEY-----\n";
        assert_eq!(text.trim_end(), pem.trim_end());
        let p256 = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n\
                    -----END PUBLIC KEY-----\n";
        let private = pem.replace("PUBLIC", "PRIVATE");
        for (file, words) in [
            (&[0; KEY_FILE_BYTES][..], "it is empty"),
            (b"", "it is empty"),
            (b"key", "no PEM file"),
            (p256.as_bytes(), "not an Ed25519"),
            (private.as_bytes(), "PRIVATE KEY is not"),
        ] {
            let error = PublicKey::from_file(file).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
