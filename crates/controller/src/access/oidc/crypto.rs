// SPDX-License-Identifier: AGPL-3.0-or-later
//! Verifies signatures of JSON Web Tokens (RFC 7518, section 3) with ring, which this process also uses for TLS.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature as ring_signature;
use signature::Verifier;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(unsupported()),
    verifier_factory: verifier,
    // For thumbprints and for keys made from private ones, which are not needed here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Installs the provider once per process; further calls do nothing.
pub fn install() {
    let _already = PROVIDER.install_default();
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    // A key of another family must not be used: its bytes would be misinterpreted.
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let public = match (key.kind(), of_rsa(*algorithm), of_curve(*algorithm)) {
        (DecodingKeyKind::RsaModulusExponent { n, e }, Some(scheme), _) => {
            Public::Rsa { scheme, n: n.clone(), e: e.clone() }
        }
        (DecodingKeyKind::SecretOrDer(point), _, Some(scheme)) => {
            Public::Curve { scheme, point: point.clone() }
        }
        _ => return Err(unsupported()),
    };
    Ok(Box::new(ByRing { algorithm: *algorithm, public }))
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

fn of_rsa(algorithm: Algorithm) -> Option<&'static ring_signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &ring_signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &ring_signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &ring_signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn of_curve(algorithm: Algorithm) -> Option<&'static dyn ring_signature::VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::ES256 => &ring_signature::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ring_signature::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ring_signature::ED25519,
        _ => return None,
    })
}

enum Public {
    Rsa { scheme: &'static ring_signature::RsaParameters, n: Vec<u8>, e: Vec<u8> },
    Curve { scheme: &'static dyn ring_signature::VerificationAlgorithm, point: Vec<u8> },
}

struct ByRing {
    algorithm: Algorithm,
    public: Public,
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(&self, message: &[u8], given: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.public {
            Public::Rsa { scheme, n, e } => {
                ring_signature::RsaPublicKeyComponents { n, e }.verify(scheme, message, given)
            }
            Public::Curve { scheme, point } => {
                ring_signature::UnparsedPublicKey::new(*scheme, point).verify(message, given)
            }
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_kind_judges_nothing() {
        let keys = [
            ("of RSA", DecodingKey::from_rsa_raw_components(&[1; 256], &[1, 0, 1])),
            ("of a curve", DecodingKey::from_ec_der(&[4; 65])),
            ("of Ed25519", DecodingKey::from_ed_der(&[1; 32])),
            ("that both know", DecodingKey::from_secret(&[1; 32])),
        ];
        let kinds = [
            (Algorithm::RS256, "of RSA"),
            (Algorithm::PS512, "of RSA"),
            (Algorithm::ES256, "of a curve"),
            (Algorithm::ES384, "of a curve"),
            (Algorithm::EdDSA, "of Ed25519"),
            (Algorithm::HS256, "none"),
        ];
        for (algorithm, own) in kinds {
            for (name, key) in &keys {
                let is_taken = verifier(&algorithm, key).is_ok();
                assert_eq!(is_taken, own == *name, "{algorithm:?} by a key {name}");
            }
        }
    }
}
