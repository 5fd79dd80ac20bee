// SPDX-License-Identifier: AGPL-3.0-or-later
//! The certificate that the controller makes for itself, and the CA that signs it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::crypto::sha256;
use crate::files::write_durably;

/// Returns the CA (made once) and a server certificate for the current names, which is made again when they change.
pub fn certificates(tls: &Path, names: &[String]) -> anyhow::Result<(String, PathBuf, PathBuf)> {
    let ca_key_pem =
        keep(&tls.join("ca.key"), || Ok(rcgen::KeyPair::generate()?.serialize_pem().into_bytes()))?;
    let ca_key = rcgen::KeyPair::from_pem(std::str::from_utf8(&ca_key_pem)?)?;
    let mut ca = rcgen::CertificateParams::default();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "Shoal controller CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    ca.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let ca_pem =
        keep(&tls.join("ca.pem"), || Ok(ca.clone().self_signed(&ca_key)?.pem().into_bytes()))?;
    let ca_pem = String::from_utf8(ca_pem.to_vec())?;

    let of_host = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut names: Vec<String> = of_host.into_iter().chain(names.iter().cloned()).collect();
    names.sort();
    names.dedup();
    let (certificate_path, key_path) = (tls.join("server.pem"), tls.join("server.key"));
    // Written last: a certificate is complete if this file names what it is for.
    let names_path = tls.join("server.names");
    let made_for = format!("{}\nCA {}\n", names.join("\n"), hex::encode(sha256(ca_pem.as_bytes())));
    let before = fs::read_to_string(&names_path).ok();
    if before.as_ref() == Some(&made_for) && certified(&certificate_path, &key_path).is_ok() {
        return Ok((ca_pem, certificate_path, key_path));
    }
    if before.is_some_and(|before| before != made_for) {
        tracing::info!(
            names = names.join(", "),
            "the names of this controller changed: it has a new certificate. Clients that trust tls/ca.pem notice \
             nothing; those that pin the former certificate itself refuse the new one until it is pinned"
        );
    }
    let mut server = rcgen::CertificateParams::new(names)?;
    server.distinguished_name.push(rcgen::DnType::CommonName, "Shoal controller");
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = rcgen::KeyPair::generate()?;
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let certificate = server.signed_by(&server_key, &issuer)?;
    write_durably(&certificate_path, format!("{}{ca_pem}", certificate.pem()).as_bytes())?;
    write_durably(&key_path, server_key.serialize_pem().as_bytes())?;
    write_durably(&names_path, made_for.as_bytes())?;
    Ok((ca_pem, certificate_path, key_path))
}

/// Loads a certificate chain and its key, and checks that they belong together.
pub fn certified(certificate: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.context("load the server certificate")?;
    let key = PrivateKeyDer::from_pem_file(key).context("load the server's key")?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).context("use the server's certificate")
}

/// Returns the bytes of a secret file, which is created first if it is absent. Atomic: after a crash the file is
/// complete or absent.
pub fn keep(
    path: &Path,
    make: impl FnOnce() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => return Ok(bytes.into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let bytes = Zeroizing::new(make()?);
    write_durably(path, &bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(bytes)
}
