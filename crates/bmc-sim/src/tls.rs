// SPDX-License-Identifier: AGPL-3.0-or-later
//! The certificate of the BMC. It is created once for each work directory, so that a pin survives a restart.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SigningKey,
};
use rustls::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

/// Clients need `bmc-ca.pem` to trust the BMC. The other two files are private.
const CA: &str = "bmc-ca.pem";
const CERTIFICATE: &str = "bmc-certificate.pem";
const KEY: &str = "bmc-key.pem";

pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    /// The hash of the certificate in DER, in hexadecimal.
    pub(crate) certificate_sha256: String,
}

pub(crate) fn load_or_make(directory: &Path, listen: IpAddr) -> anyhow::Result<Identity> {
    // The key is written last: if it exists, all files exist.
    if !directory.join(KEY).exists() {
        make(directory, listen).context("make the certificate of the BMC")?;
    }
    load(directory).context("load the certificate of the BMC")
}

/// A certificate that is not stored.
pub(crate) fn make_version_3(listen: IpAddr) -> anyhow::Result<Identity> {
    let made = issue(listen).context("make the certificate of the BMC")?;
    let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes())?;
    identity(certificate, key)
}

fn make(directory: &Path, listen: IpAddr) -> anyhow::Result<()> {
    let Made { ca, certificate, key } = issue(listen)?;
    fs::write(directory.join(CA), ca)?;
    fs::write(directory.join(CERTIFICATE), certificate)?;
    fs::write(directory.join(KEY), key)?;
    Ok(())
}

/// A certificate, its CA and its key, in PEM.
struct Made {
    ca: String,
    certificate: String,
    key: String,
}

fn issue(listen: IpAddr) -> anyhow::Result<Made> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "shoal-bmc-sim CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let names = ["localhost".into(), "127.0.0.1".into(), listen.to_string()];
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, "shoal-bmc-sim");
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;

    Ok(Made { ca: ca_certificate.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A self-signed certificate of X.509 version 1, which is not stored.
pub(crate) fn make_version_1() -> anyhow::Result<Identity> {
    let key = KeyPair::generate()?;
    let certificate = CertificateDer::from(version_1(&key)?);
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key)?;
    // The usual constructor parses the certificate, and accepts version 3 only.
    let certified = CertifiedKey::new(vec![certificate.clone()], signing);
    let certificate_sha256 = hex::encode(Sha256::digest(&certificate));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), certificate_sha256 })
}

/// RFC 5280 4.1: a certificate without the version field, which means version 1, and without extensions.
fn version_1(key: &KeyPair) -> anyhow::Result<Vec<u8>> {
    // ecdsa-with-SHA256; commonName (RFC 5758 3.2, RFC 5280 appendix A.1).
    let algorithm = der(0x30, &[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let attribute = [&[0x06, 3, 0x55, 4, 3][..], &der(0x0c, &[b"shoal-bmc-sim"])].concat();
    let name = der(0x30, &[&der(0x31, &[&der(0x30, &[&attribute])])]);
    let times = [der(0x17, &[b"200101000000Z"]), der(0x17, &[b"491231235959Z"])].concat();
    let serial = der(0x02, &[&[1]]);
    let signed = der(
        0x30,
        &[&serial, &algorithm, &name, &der(0x30, &[&times]), &name, &key.subject_public_key_info()],
    );
    let signature = key.sign(&signed)?;
    let bits = der(0x03, &[&[0], &signature]);
    Ok(der(0x30, &[&signed, &algorithm, &bits]))
}

/// A value in DER with its tag and length, which is below 64 KiB here.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [.., high, low] = content.len().to_be_bytes();
    let head = match (high, low) {
        (0, 0..=0x7f) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}

fn load(directory: &Path) -> anyhow::Result<Identity> {
    let certificate = CertificateDer::from_pem_file(directory.join(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_file(directory.join(KEY))?;
    identity(certificate, key)
}

fn identity(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<Identity> {
    let certificate_sha256 = hex::encode(Sha256::digest(&certificate));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), certificate_sha256 })
}
