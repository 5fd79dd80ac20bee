// SPDX-License-Identifier: AGPL-3.0-or-later
//! A registry on its own port, and helpers for requests to it.

use std::path::Path;
use std::sync::{Arc, Once};

use crate::{Access, Grant, Policy, Registry};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use oci::Digest;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

pub const MANIFEST: &str = oci::media_type::MANIFEST;
pub const INDEX: &str = oci::media_type::INDEX;
pub const DOCKER_MANIFEST: &str = oci::media_type::DOCKER_MANIFEST;

pub struct World {
    pub url: String,
    pub client: Client,
    /// The bearer token of every request; see [`access`].
    pub token: String,
    pub registry: Arc<Registry>,
    server: Option<Runtime>,
}

/// A response.
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl World {
    pub async fn start(dir: &Path) -> World {
        let policy = Policy { keep_free_bytes: 0, ..Policy::default() };
        World::start_with(dir, policy).await
    }

    pub async fn start_with(dir: &Path, policy: Policy) -> World {
        static CRYPTO: Once = Once::new();
        CRYPTO.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
        let registry = Arc::new(Registry::open_with(dir, policy).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = crate::router(registry.clone()).layer(from_fn(grant));
        // On its own runtime, which ends all its connections at once when it is dropped.
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = listener.into_std().unwrap();
        server.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        World { url, client, token: "admin".into(), registry, server: Some(server) }
    }

    /// Shuts this registry down and opens its directory again. Running uploads are cut off.
    pub async fn restart(self, dir: &Path) -> World {
        self.restart_with(dir, 0).await
    }

    /// The same with this many bytes of the disk kept free.
    pub async fn restart_with(mut self, dir: &Path, keep_free_bytes: u64) -> World {
        let server = self.server.take().unwrap();
        tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
        drop(self);
        World::start_with(dir, Policy { keep_free_bytes, ..Policy::default() }).await
    }

    /// Sends requests as another principal.
    pub fn as_bearer(&self, token: &str) -> impl Fn(&str, &str) -> RequestBuilder + use<> {
        let (client, base, token) = (self.client.clone(), self.url.clone(), token.to_owned());
        move |method, path| {
            let url = format!("{base}{path}");
            client.request(method.parse().unwrap(), url).bearer_auth(&token)
        }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url =
            if path.starts_with("http") { path.into() } else { format!("{}{path}", self.url) };
        self.client.request(method.parse().unwrap(), url).bearer_auth(&self.token)
    }

    pub async fn send(&self, method: &str, path: &str) -> Answer {
        answer(self.request(method, path)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path).await
    }

    pub async fn status(&self, method: &str, path: &str) -> u16 {
        self.send(method, path).await.status
    }

    /// Begins an upload. Returns its location.
    pub async fn begin(&self, repository: &str) -> String {
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/")).await;
        assert_eq!(begun.status, 202, "{}", begun.text());
        begun.header("location").unwrap()
    }

    /// Pushes a whole blob in one request.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let pushed = answer(self.request("POST", &path).body(bytes.to_vec())).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        digest
    }

    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        content_type: &str,
        document: &Value,
    ) -> Answer {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let body = serde_json::to_vec(document).unwrap();
        let request = self.request("PUT", &path).header("content-type", content_type);
        answer(request.body(body)).await
    }

    /// Pushes an image of one layer under a tag. Returns its manifest's digest.
    pub async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        self.push_blob(repository, b"{}").await;
        self.push_blob(repository, layer).await;
        let document = image(&[layer]);
        let put = self.put_manifest(repository, tag, MANIFEST, &document).await;
        assert_eq!(put.status, 201, "{}", put.text());
        digest_of(&document)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().unwrap().to_owned())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The spec's error code.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn is_error(&self, status: u16, code: &str) -> bool {
        let is_json = self.header("content-type").as_deref() == Some("application/json");
        self.status == status && is_json && self.code() == code
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().to_vec(),
    }
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()})
}

/// A manifest with an empty config and these layers.
pub fn image(layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> =
        layers.iter().map(|layer| descriptor(oci::media_type::LAYER_TAR, layer)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(oci::media_type::EMPTY, b"{}"),
        "layers": layers,
    })
}

/// An index of these documents.
pub fn index(children: &[&Value]) -> Value {
    let manifests: Vec<Value> = children
        .iter()
        .map(|child| {
            descriptor(child["mediaType"].as_str().unwrap(), &serde_json::to_vec(child).unwrap())
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
}

pub fn digest_of(document: &Value) -> Digest {
    Digest::of(&serde_json::to_vec(document).unwrap())
}

pub fn sha512(bytes: &[u8]) -> Digest {
    let any: Digest = format!("sha512:{}", "0".repeat(128)).parse().unwrap();
    let mut hasher = oci::Hasher::like(&any);
    hasher.update(bytes);
    hasher.finish()
}

/// Pseudo-random bytes, the same for the same seed.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count.div_ceil(8)).flat_map(|_| step()).take(count).collect()
}

/// `u:admin` in the form that programs with a user name send.
const BASIC_ADMIN: &str = "Basic dTphZG1pbg==";

/// Acts as the host that authenticates the caller, by the token.
async fn grant(mut request: Request, next: Next) -> Response {
    let token =
        request.headers().get("authorization").and_then(|value| match value.to_str().ok()? {
            BASIC_ADMIN => Some("admin".to_owned()),
            other => other.strip_prefix("Bearer ").map(str::to_owned),
        });
    if let Some(access) = token.as_deref().and_then(access) {
        request.extensions_mut().insert(access);
    }
    next.run(request).await
}

/// `admin`, `pull=PREFIX`, `push=PREFIX` or `job=REPOSITORY@DIGEST`.
fn access(token: &str) -> Option<Access> {
    let grant = match token.split_once('=') {
        None => (token == "admin").then_some(Grant::Administer)?,
        Some(("pull", prefix)) => {
            Grant::Prefixes { pull: vec![prefix.parse().ok()?], push: Vec::new() }
        }
        Some(("push", prefix)) => {
            Grant::Prefixes { pull: Vec::new(), push: vec![prefix.parse().ok()?] }
        }
        Some(("job", artifact)) => {
            let (repository, digest) = artifact.split_once('@')?;
            Grant::Artifact { repository: repository.parse().ok()?, digest: digest.parse().ok()? }
        }
        Some(_) => return None,
    };
    Some(Access { who: token.split('=').next()?.to_owned(), grant })
}
