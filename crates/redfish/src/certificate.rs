// SPDX-License-Identifier: AGPL-3.0-or-later
//! The public key of a certificate, and verification of signatures with it. Only the fields up to the key are read: a
//! pinned certificate may have any version (BMCs still use X.509 v1), extensions and dates, and its own signature
//! proves nothing.
//!
//! Sources: RFC 5280 4.1 (certificate), RFC 8017 A.1.1 (RSA key), RFC 5480 2 (keys of elliptic curves).

use ring::signature::{
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    UnparsedPublicKey,
};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::SignatureVerificationAlgorithm;

/// Shorter keys can be broken at little cost, and no library here verifies their signatures.
pub(crate) const RSA_BITS_MIN: usize = 1024;
/// Shorter keys are weak: their signatures are only verified in the one form that old BMCs produce.
const RSA_BITS_STRONG: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

/// The schemes of [`Key::is_signed_weakly`], in the order of preference.
pub(crate) const WEAK_SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PKCS1_SHA512];

/// `rsaEncryption`, 1.2.840.113549.1.1.1, with its tag and length.
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
/// The form that libraries write for RSA keys: the parameters are NULL.
const RSA_WITH_NULL: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
/// `id-ecPublicKey`, 1.2.840.10045.2.1.
const EC: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
/// `id-dsa`, 1.2.840.10040.4.1.
const DSA: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x38\x04\x01";
/// `id-RSASSA-PSS`, 1.2.840.113549.1.1.10.
const RSA_PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";

/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The public key of a certificate.
#[derive(Debug)]
pub(crate) struct Key<'a> {
    /// Algorithm and parameters, encoded as in `AlgorithmIdentifier`.
    algorithm: &'a [u8],
    bytes: &'a [u8],
}

/// What a key can be used for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    Usual,
    /// An RSA key that is shorter than TLS libraries accept.
    Weak,
    /// With the reason.
    Unusable(String),
}

impl<'a> Key<'a> {
    /// Reads the key. `None` if this is not a certificate.
    pub fn of(certificate: &'a [u8]) -> Option<Key<'a>> {
        let (certificate, _) = take(certificate, SEQUENCE)?;
        let (mut rest, _) = take(certificate, SEQUENCE)?;
        if let Some((_, after)) = take(rest, VERSION) {
            rest = after;
        }
        // Serial number; signature algorithm, issuer, validity and subject.
        rest = take(rest, INTEGER)?.1;
        for _ in 0..4 {
            rest = take(rest, SEQUENCE)?.1;
        }
        let (info, _) = take(rest, SEQUENCE)?;
        let (algorithm, rest) = take(info, SEQUENCE)?;
        let (bits, _) = take(rest, BIT_STRING)?;
        // The first byte is the number of unused bits, which is 0 for a key.
        let bytes = bits.strip_prefix(b"\0")?;
        let algorithm = if algorithm == RSA { RSA_WITH_NULL } else { algorithm };
        Some(Key { algorithm, bytes })
    }

    pub fn strength(&self, known: &WebPkiSupportedAlgorithms) -> Strength {
        if self.algorithm == RSA_WITH_NULL {
            return match self.rsa_bits() {
                None => Strength::Unusable("its RSA key cannot be read".into()),
                Some(bits) if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) => {
                    Strength::Unusable(format!(
                        "its RSA key has {bits} bits, and only keys of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits can be \
                         checked"
                    ))
                }
                Some(bits) if bits < RSA_BITS_STRONG => Strength::Weak,
                Some(_) => Strength::Usual,
            };
        }
        if known.all.iter().any(|one| one.public_key_alg_id().as_ref() == self.algorithm) {
            return Strength::Usual;
        }
        let kind = match self.algorithm {
            algorithm if algorithm.starts_with(EC) => {
                "on another elliptic curve than P-256 and P-384"
            }
            algorithm if algorithm.starts_with(DSA) => "for DSA",
            algorithm if algorithm.starts_with(RSA_PSS) => "for RSASSA-PSS alone",
            _ => "of a kind that is not known",
        };
        Strength::Unusable(format!("its key is {kind}, which cannot be checked"))
    }

    /// Whether a message of a TLS 1.2 handshake was signed with this key.
    pub fn is_signed_in_tls12(
        &self,
        known: &WebPkiSupportedAlgorithms,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        // In TLS 1.2, a scheme does not determine the curve.
        let mut all =
            known.mapping.iter().filter(|(of, _)| *of == scheme).flat_map(|(_, all)| *all);
        all.any(|one| self.is_signed(*one, message, signature))
    }

    /// The same for TLS 1.3, where a scheme is one algorithm and PKCS#1 v1.5 is not allowed (RFC 8446, 4.4.3).
    pub fn is_signed_in_tls13(
        &self,
        known: &WebPkiSupportedAlgorithms,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let is_pkcs1 = matches!(
            scheme,
            SignatureScheme::RSA_PKCS1_SHA256
                | SignatureScheme::RSA_PKCS1_SHA384
                | SignatureScheme::RSA_PKCS1_SHA512
        );
        let found = known.mapping.iter().find(|(of, _)| *of == scheme);
        let one = found.and_then(|(_, all)| all.first());
        one.is_some_and(|one| !is_pkcs1 && self.is_signed(*one, message, signature))
    }

    /// Whether the message was signed with this key, by an algorithm for such keys.
    fn is_signed(
        &self,
        by: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        by.public_key_alg_id().as_ref() == self.algorithm
            && by.verify_signature(self.bytes, message, signature).is_ok()
    }

    /// Whether the message was signed with this weak RSA key, in one of [`WEAK_SCHEMES`].
    pub fn is_signed_weakly(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let algorithm = match scheme {
            SignatureScheme::RSA_PKCS1_SHA256 => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            SignatureScheme::RSA_PKCS1_SHA512 => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
            _ => return false,
        };
        self.algorithm == RSA_WITH_NULL
            && UnparsedPublicKey::new(algorithm, self.bytes).verify(message, signature).is_ok()
    }

    fn rsa_bits(&self) -> Option<usize> {
        let (key, _) = take(self.bytes, SEQUENCE)?;
        let (modulus, _) = take(key, INTEGER)?;
        let first = modulus.iter().position(|byte| *byte != 0)?;
        let significant = modulus.get(first..)?;
        let top = significant.first()?;
        Some(significant.len() * 8 - top.leading_zeros() as usize)
    }
}

/// The content of the element with this tag at the start of `der`, and the bytes after it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    // X.690, 8.1.3: a length below 128, or the number of its bytes. The form without a length is not DER.
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_has_no_key_and_ends() {
        let certificate = rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).unwrap();
        let der = certificate.cert.der().to_vec();
        assert!(Key::of(&der).is_some());
        for length in 0..der.len() {
            assert!(Key::of(&der[..length]).is_none(), "{length}");
        }
        for (at, bits) in (0..der.len()).flat_map(|at| [(at, 0x01), (at, 0x80), (at, 0xff)]) {
            let mut damaged = der.clone();
            damaged[at] ^= bits;
            let _any_end = Key::of(&damaged).map(|key| key.rsa_bits());
        }
    }
}
