// SPDX-License-Identifier: AGPL-3.0-or-later
//! The certificate of the BMC: made once per work directory, so that a pin survives a restart.

use std::{fs, net::IpAddr, path::Path, sync::Arc};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

/// What a client needs to trust us is `bmc-ca.pem`; the other two are ours.
const CA: &str = "bmc-ca.pem";
const CERTIFICATE: &str = "bmc-certificate.pem";
const KEY: &str = "bmc-key.pem";

pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    /// Of the certificate in DER, in hexadecimal.
    pub(crate) certificate_sha256: String,
}

pub(crate) fn load_or_make(directory: &Path, listen: IpAddr) -> anyhow::Result<Identity> {
    // The key is written last: with it everything is there.
    if !directory.join(KEY).exists() {
        make(directory, listen).context("make the certificate of the BMC")?;
    }
    load(directory).context("load the certificate of the BMC")
}

fn make(directory: &Path, listen: IpAddr) -> anyhow::Result<()> {
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

    fs::write(directory.join(CA), ca_certificate.pem())?;
    fs::write(directory.join(CERTIFICATE), certificate.pem())?;
    fs::write(directory.join(KEY), key.serialize_pem())?;
    Ok(())
}

fn load(directory: &Path) -> anyhow::Result<Identity> {
    let certificate = CertificateDer::from_pem_file(directory.join(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_file(directory.join(KEY))?;
    let certificate_sha256 = hex::encode(Sha256::digest(&certificate));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), certificate_sha256 })
}
