// SPDX-License-Identifier: AGPL-3.0-or-later
//! A bundle of nested indexes, each of which names the next one twice. A walk that does not remember which
//! indexes it has seen takes exponential time.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Makes nested indexes, each of which names the next one twice.
pub fn nested(levels: usize) -> Vec<u8> {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut blobs = Vec::new();
    let mut inner: Vec<Value> = Vec::new();
    for _ in 0..levels {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": inner}).to_string();
        let hex = hex::encode(Sha256::digest(index.as_bytes()));
        let child =
            json!({"mediaType": INDEX, "digest": format!("sha256:{hex}"), "size": index.len()});
        inner = vec![child.clone(), child];
        blobs.push((format!("blobs/sha256/{hex}"), index));
    }
    let mut root = inner.swap_remove(0);
    root["annotations"] =
        json!({"io.shoal.repository": "hostile", "org.opencontainers.image.ref.name": "hostile:1"});
    let plan = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [root]}).to_string();
    let mut tar = Vec::new();
    let first = [("oci-layout".to_owned(), "{}".to_owned()), ("index.json".to_owned(), plan)];
    for (name, content) in first.iter().chain(&blobs) {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content.as_bytes());
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}
