// SPDX-License-Identifier: AGPL-3.0-or-later
//! A registry in this process: plain HTTP/1.1 with ranges. It can be told to break connections.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use oci::{Descriptor, Digest, media_type};
use recipe::run_dir::PullAccess;

pub const TOKEN: &str = "attempt-token";

#[derive(Default)]
pub struct Registry {
    documents: HashMap<String, (String, Vec<u8>)>,
    /// For each of the next responses to a blob's GET: the number of bytes before the connection breaks.
    pub cuts: Mutex<Vec<usize>>,
    /// The status of each of the next responses, in place of the regular response.
    pub statuses: Mutex<Vec<u16>>,
    /// `GET path range` of every request.
    pub log: Mutex<Vec<String>>,
}

impl Registry {
    /// Stores layers as one image. Returns the digest of its manifest.
    pub fn push(&mut self, layers: &[(&str, Vec<u8>)]) -> (Digest, Vec<Descriptor>) {
        let config = self.blob(media_type::EMPTY, b"{}");
        let layers: Vec<_> = layers.iter().map(|(kind, bytes)| self.blob(kind, bytes)).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers,
        });
        (self.manifest(&manifest).digest, layers)
    }

    pub fn blob(&mut self, kind: &str, bytes: &[u8]) -> Descriptor {
        self.store(kind, "blobs", bytes)
    }

    /// A manifest or an index, by its media type.
    pub fn manifest(&mut self, document: &serde_json::Value) -> Descriptor {
        let kind = document["mediaType"].as_str().unwrap().to_owned();
        self.store(&kind, "manifests", &serde_json::to_vec(document).unwrap())
    }

    fn store(&mut self, kind: &str, place: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        let path = format!("/v2/os/debian/{place}/{digest}");
        self.documents.insert(path, (kind.to_owned(), bytes.to_vec()));
        Descriptor {
            media_type: kind.to_owned(),
            digest,
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: Default::default(),
        }
    }

    /// Replaces the bytes of a digest with other bytes.
    pub fn damage(&mut self, digest: &Digest, bytes: &[u8]) {
        let wanted = digest.to_string();
        let found = self.documents.iter_mut().find(|(path, _)| path.ends_with(&wanted));
        found.unwrap().1.1 = bytes.to_vec();
    }

    /// Serves until the process ends.
    pub fn serve(self, listener: TcpListener) -> (Arc<Registry>, PullAccess) {
        let authority = listener.local_addr().unwrap().to_string();
        let registry = Arc::new(self);
        let served = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let registry = served.clone();
                std::thread::spawn(move || registry.answer(stream));
            }
        });
        let access =
            PullAccess { authority, ca_pem: None, token: TOKEN.to_owned().into(), digest: None };
        (registry, access)
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut head = Vec::new();
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                let bytes = self.respond(&head);
                let is_whole = bytes.1;
                if stream.write_all(&bytes.0).is_err() || !is_whole {
                    return;
                }
                head.clear();
            } else {
                head.push(line);
            }
        }
    }

    /// The response, and whether the connection stays open.
    fn respond(&self, head: &[String]) -> (Vec<u8>, bool) {
        let header = |name: &str| {
            head.iter().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let path = head[0].split(' ').nth(1).unwrap_or_default().to_owned();
        let range = header("range");
        let bounds =
            range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let (from, last) = bounds.unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap();
        let line = [path.clone(), range.clone().unwrap_or_default()].join(" ");
        self.log.lock().unwrap().push(line.trim().to_owned());
        let plain = |status: u16| {
            (format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").into_bytes(), true)
        };
        if header("authorization") != Some(format!("Bearer {TOKEN}")) {
            return plain(401);
        }
        if let Some(status) = self.statuses.lock().unwrap().pop() {
            return plain(status);
        }
        let Some((kind, bytes)) = self.documents.get(&path) else { return plain(404) };
        let last = last.parse::<usize>().unwrap_or(usize::MAX).min(bytes.len().saturating_sub(1));
        let (status, content) = match range {
            None => ("200 OK".to_owned(), String::new()),
            Some(_) => (
                "206 Partial Content".into(),
                format!("Content-Range: bytes {from}-{last}/{}\r\n", bytes.len()),
            ),
        };
        let body = &bytes[from..(last + 1).min(bytes.len())];
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{content}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let is_blob = path.contains("/blobs/");
        let cut = is_blob.then(|| self.cuts.lock().unwrap().pop()).flatten();
        let sent = &body[..cut.unwrap_or(body.len()).min(body.len())];
        ([head.as_bytes(), sent].concat(), cut.is_none())
    }
}

pub fn url(digest: &Digest) -> String {
    format!("controller/os/debian@{digest}")
}
