// SPDX-License-Identifier: AGPL-3.0-or-later
//! The same requests as the conformance suite of distribution-spec's main branch (conformance/run.go, 4fc4ecb),
//! written anew, with all options except sparse manifests: ours must be complete. Each kind of data is pushed,
//! listed, pulled, queried by HEAD and referrers, and deleted; each way to push a blob is run with both digest
//! algorithms. The suite itself is a Go program and not part of these tests. Its earlier edition (v1.1.1) is in
//! `conformance`.

use oci::{Digest, media_type};
use serde_json::{Value, json};

use super::cases::Cases;
use super::world::{Answer, INDEX, MANIFEST, World, answer, noise, sha512};

const REPOSITORY: &str = "conformance/repo1";
const OTHER: &str = "conformance/repo2";
const EXAMPLE: &str = "application/vnd.example.oci.conformance";
const OTHER_EXAMPLE: &str = "application/vnd.example.oci.conformance.v2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    fn of(self, bytes: &[u8]) -> Digest {
        match self {
            Algorithm::Sha256 => Digest::of(bytes),
            Algorithm::Sha512 => sha512(bytes),
        }
    }
}

/// A manifest to push, with its tags.
struct Pushed {
    document: Value,
    digest: Digest,
    tags: Vec<String>,
}

/// Blobs and manifests that belong together, in the order in which they are pushed.
struct Data {
    name: &'static str,
    algorithm: Algorithm,
    /// Tags are created with `?tag=` in the push by digest.
    by_parameter: bool,
    blobs: Vec<Vec<u8>>,
    manifests: Vec<Pushed>,
    /// The seed of the next random bytes.
    seed: u64,
}

impl Data {
    fn of(name: &'static str) -> Data {
        let seed = name.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31) ^ u64::from(byte));
        let algorithm = Algorithm::Sha256;
        Data { name, algorithm, by_parameter: false, blobs: vec![], manifests: vec![], seed }
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        if !self.blobs.iter().any(|known| known == bytes) {
            self.blobs.push(bytes.to_vec());
        }
        self.descriptor(media_type, bytes)
    }

    fn descriptor(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = self.algorithm.of(bytes);
        json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()})
    }

    fn noise(&mut self) -> Vec<u8> {
        self.seed = self.seed.wrapping_add(1);
        noise(self.seed, 2048)
    }

    /// An image of this architecture with layers of this type.
    fn image(&mut self, architecture: &str, layer_type: &str, layers: usize) -> Value {
        let config = json!({
            "os": "linux", "architecture": architecture, "n": self.seed, "name": self.name,
        });
        let config_type = "application/vnd.oci.image.config.v1+json";
        let config = self.blob(config_type, config.to_string().as_bytes());
        let layers: Vec<Value> = (0..layers)
            .map(|_| {
                let bytes = self.noise();
                self.blob(layer_type, &bytes)
            })
            .collect();
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
    }

    fn artifact(&mut self, artifact_type: &str) -> Value {
        let config = self.blob(media_type::EMPTY, b"{}");
        let bytes = self.noise();
        let layer = self.blob(EXAMPLE, &bytes);
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type,
            "config": config, "layers": [layer],
        })
    }

    fn index(&self, children: &[Value]) -> Value {
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})
    }

    /// Pushes a document by these tags and by its digest. Returns its descriptor.
    fn push(&mut self, document: Value, tags: &[&str]) -> Value {
        let bytes = serde_json::to_vec(&document).unwrap();
        let descriptor = self.descriptor(document["mediaType"].as_str().unwrap(), &bytes);
        let (digest, tags) =
            (self.algorithm.of(&bytes), tags.iter().map(|tag| (*tag).into()).collect());
        self.manifests.push(Pushed { document, digest, tags });
        descriptor
    }

    /// Two images and their index.
    fn push_index(&mut self, tags: &[&str], change: impl Fn(&mut Value)) -> Value {
        let children: Vec<Value> = ["amd64", "arm64"]
            .iter()
            .map(|architecture| {
                let mut image = self.image(architecture, media_type::LAYER_TAR_GZIP, 2);
                change(&mut image);
                let mut descriptor = self.push(image, &[]);
                descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
                descriptor
            })
            .collect();
        let mut index = self.index(&children);
        change(&mut index);
        self.push(index, tags)
    }
}

/// The suite's kinds of data.
fn all_data() -> Vec<Data> {
    let mut all = Vec::new();
    let mut make = |name, fill: &dyn Fn(&mut Data)| {
        let mut data = Data::of(name);
        fill(&mut data);
        all.push(data);
    };
    let gzip = media_type::LAYER_TAR_GZIP;
    let uniq = json!({"org.opencontainers.conformance": "hello", "uniq": "1"});
    make("image", &|data| {
        let image = data.image("amd64", gzip, 4);
        data.push(image, &["image"]);
    });
    make("image-uncompressed", &|data| {
        let image = data.image("amd64", media_type::LAYER_TAR, 2);
        data.push(image, &["image-uncompressed"]);
    });
    make("large-manifest", &|data| {
        let mut image = data.image("amd64", gzip, 2);
        for number in 0..390 {
            image["annotations"][format!("large-{number}")] = "A".repeat(10_000).into();
        }
        data.push(image, &["large-manifest"]);
    });
    make("index", &|data| drop(data.push_index(&["index"], |_| {})));
    make("nested-index", &|data| {
        let (one, other) = (data.push_index(&[], |_| {}), data.push_index(&[], |_| {}));
        let index = data.index(&[one, other]);
        data.push(index, &["index-of-index"]);
    });
    make("empty-index", &|data| {
        let index = data.index(&[]);
        data.push(index, &["index"]);
    });
    make("artifact", &|data| {
        let artifact = data.artifact(EXAMPLE);
        data.push(artifact, &["artifact"]);
    });
    make("artifact-index", &|data| {
        let (one, other) = (data.artifact(EXAMPLE), data.artifact(EXAMPLE));
        let children = [data.push(one, &[]), data.push(other, &[])];
        let mut index = data.index(&children);
        index["artifactType"] = EXAMPLE.into();
        data.push(index, &["artifact-index"]);
    });
    make("artifact-without-layers", &|data| {
        let empty = data.blob(media_type::EMPTY, b"{}");
        let artifact = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": EXAMPLE, "config": empty,
            "layers": [empty],
        });
        data.push(artifact, &["artifact-without-layers"]);
    });
    make("artifacts-with-subject", &|data| {
        let image = data.image("amd64", gzip, 2);
        let subject = data.push(image, &["image"]);
        let mut plain = data.image("amd64", gzip, 1);
        plain["subject"] = subject.clone();
        data.push(plain, &[]);
        for (artifact_type, tag) in
            [(EXAMPLE, "tagged-artifact1"), (OTHER_EXAMPLE, "tagged-artifact2")]
        {
            let mut artifact = data.artifact(artifact_type);
            artifact["annotations"] = uniq.clone();
            artifact["subject"] = subject.clone();
            data.push(artifact, &[tag]);
        }
    });
    make("index-with-subject", &|data| {
        let subject = data.push_index(&["index"], |_| {});
        let child = data.artifact(EXAMPLE);
        let child = data.push(child, &[]);
        let mut index = data.index(&[child]);
        index["artifactType"] = EXAMPLE.into();
        index["annotations"] = uniq.clone();
        index["subject"] = subject;
        data.push(index, &["tagged-artifact"]);
    });
    make("missing-subject", &|data| {
        let mut artifact = data.artifact(EXAMPLE);
        artifact["annotations"] = uniq.clone();
        artifact["subject"] = data.descriptor(MANIFEST, b"missing content");
        data.push(artifact, &["tagged-artifact"]);
    });
    make("data-field", &|data| {
        let mut image = data.image("amd64", gzip, 1);
        image["config"] = data.blob(media_type::EMPTY, b"{}");
        image["config"]["data"] = "e30=".into();
        data.push(image, &["data-field"]);
    });
    make("non-distributable-layers", &|data| {
        let mut image = data.image("amd64", gzip, 1);
        for kind in ["tar+gzip", "tar"] {
            let kind = format!("application/vnd.oci.image.layer.nondistributable.v1.{kind}");
            let bytes = data.noise();
            let mut layer = data.descriptor(&kind, &bytes);
            layer["urls"] = json!(["https://store.example.com/blobs/x"]);
            image["layers"].as_array_mut().unwrap().insert(0, layer);
        }
        data.push(image, &["non-distributable-image"]);
    });
    make("custom-fields", &|data| {
        data.push_index(&["custom-fields"], |document| {
            document["org.example.extra"] = json!({"a": ["b", 1, null]});
            if let Some(layer) = document.pointer_mut("/layers/0") {
                layer["org.example.extra"] = json!("c");
            }
        });
    });
    make("no-layers", &|data| {
        let image = data.image("amd64", gzip, 0);
        data.push(image, &["no-layers"]);
    });
    make("sha512", &|data| {
        data.algorithm = Algorithm::Sha512;
        data.push_index(&[], |_| {});
    });
    for (name, algorithm) in
        [("tag-param-sha256", Algorithm::Sha256), ("tag-param-sha512", Algorithm::Sha512)]
    {
        make(name, &|data| {
            (data.algorithm, data.by_parameter) = (algorithm, true);
            data.push_index(&[name], |_| {});
            for (number, pushed) in data.manifests.iter_mut().enumerate() {
                pushed.tags.push(format!("{name}-{number}"));
            }
        });
    }
    all
}

/// Asserts that a response is this content, or has only its headers.
fn is_content(
    cases: &mut Cases,
    claim: &str,
    got: &Answer,
    (media_type, digest, bytes): (Option<&str>, &Digest, &[u8]),
    has_body: bool,
) {
    let body: &[u8] = if has_body { bytes } else { b"" };
    let found = (got.status, got.header("content-length"), got.body == body);
    cases.is(claim, found, (200, Some(bytes.len().to_string()), true));
    let told = got.header("docker-content-digest");
    cases.is(&format!("{claim} tells its digest"), told, Some(digest.to_string()));
    if let Some(media_type) = media_type {
        let told = got.header("content-type");
        cases.is(&format!("{claim} tells its type"), told, Some(media_type.into()));
    }
}

async fn put(world: &World, reference: &str, document: &Value) -> Answer {
    let media_type = document["mediaType"].as_str().unwrap();
    world.put_manifest(REPOSITORY, reference, media_type, document).await
}

#[tokio::test]
async fn every_kind_of_data_lives_from_its_push_to_its_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance suite, data");
    let all = all_data();
    assert_eq!(all.len(), 19);
    for data in &all {
        push(&world, &mut cases, data).await;
        look(&world, &mut cases, data).await;
        refer(&world, &mut cases, data).await;
        delete(&world, &mut cases, data).await;
    }
    cases.end();
}

async fn push(world: &World, cases: &mut Cases, data: &Data) {
    for (number, blob) in data.blobs.iter().enumerate() {
        let way = WAYS[number % WAYS.len()];
        let digest = data.algorithm.of(blob);
        let done = push_blob(world, REPOSITORY, way, &digest, blob).await;
        cases.is(&format!("{}: push of a blob, {way:?}", data.name), done.status, 201);
    }
    for Pushed { document, digest, tags } in &data.manifests {
        let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let query = if data.by_parameter { format!("?{}", query.join("&")) } else { String::new() };
        let mut puts = vec![(format!("{digest}{query}"), "digest")];
        if !data.by_parameter {
            puts.extend(tags.iter().map(|tag| (tag.clone(), "tag")));
        }
        for (reference, by) in puts {
            let done = put(world, &reference, document).await;
            let claim = format!("{}: PUT by {by}", data.name);
            cases.is(&format!("{claim} {}", done.text()), done.status, 201);
            let told = done.header("docker-content-digest");
            let expected =
                if by == "tag" { Digest::of(&bytes_of(document)) } else { digest.clone() };
            cases.is(&format!("{claim} tells the digest"), told, Some(expected.to_string()));
            let place = done.header("location").unwrap_or_default();
            let got = world.get(&place).await;
            cases.holds(&format!("{claim} tells the place"), got.body == bytes_of(document));
            let subject = document.pointer("/subject/digest").and_then(Value::as_str);
            let told = done.header("oci-subject");
            cases.is(&format!("{claim} tells the subject"), told.as_deref(), subject);
            let told: Vec<_> = done.headers.get_all("oci-tag").iter().collect();
            let expected = if data.by_parameter { tags.len() } else { 0 };
            cases.is(&format!("{claim} tells its tags"), told.len(), expected);
        }
    }
}

fn bytes_of(document: &Value) -> Vec<u8> {
    serde_json::to_vec(document).unwrap()
}

/// Lists, HEAD and GET.
async fn look(world: &World, cases: &mut Cases, data: &Data) {
    let name = data.name;
    let at = |what: &str, which: &str| format!("/v2/{REPOSITORY}/{what}/{which}");
    let tags = async |query: &str| -> Vec<String> {
        let listed = world.get(&at("tags", &format!("list{query}"))).await;
        serde_json::from_value(listed.json()["tags"].clone()).unwrap_or_default()
    };
    let listed = tags("").await;
    let wanted = data.manifests.iter().flat_map(|pushed| &pushed.tags);
    for tag in wanted {
        cases.holds(&format!("{name}: the list has {tag}"), listed.contains(tag));
    }
    if listed.len() >= 2 {
        let (before, behind) = listed.split_at(listed.len() / 2);
        let rest = tags(&format!("?last={}", before.last().unwrap())).await;
        cases.is(&format!("{name}: the list behind last"), rest, behind.to_vec());
    }
    for (method, has_body) in [("HEAD", false), ("GET", true)] {
        for Pushed { document, digest, tags } in &data.manifests {
            let (media_type, bytes) = (document["mediaType"].as_str(), bytes_of(document));
            let digests = [digest.to_string()];
            for reference in tags.iter().chain(&digests) {
                let got = world.send(method, &at("manifests", reference)).await;
                let claim = format!("{name}: {method} of {reference}");
                is_content(cases, &claim, &got, (media_type, digest, &bytes), has_body);
            }
        }
        for blob in &data.blobs {
            let digest = data.algorithm.of(blob);
            let got = world.send(method, &at("blobs", digest.as_str())).await;
            let claim = format!("{name}: {method} of a blob");
            is_content(cases, &claim, &got, (None, &digest, blob), has_body);
        }
    }
}

async fn refer(world: &World, cases: &mut Cases, data: &Data) {
    let subject_of = |document: &Value| {
        document.pointer("/subject/digest").and_then(Value::as_str).map(str::to_owned)
    };
    let subjects: std::collections::BTreeSet<String> =
        data.manifests.iter().filter_map(|pushed| subject_of(&pushed.document)).collect();
    for subject in subjects {
        let of = async |query: &str| {
            let path = format!("/v2/{REPOSITORY}/referrers/{subject}{query}");
            let found = world.get(&path).await;
            let manifests = found.json()["manifests"].as_array().cloned().unwrap_or_default();
            (found, manifests)
        };
        let goals: Vec<Value> = data
            .manifests
            .iter()
            .filter(|pushed| subject_of(&pushed.document).as_ref() == Some(&subject))
            .map(|Pushed { document, .. }| {
                let media_type = document["mediaType"].as_str().unwrap();
                let mut goal = data.descriptor(media_type, &bytes_of(document));
                let artifact_type = document.get("artifactType");
                let config = document.pointer("/config/mediaType");
                goal["artifactType"] = artifact_type.or(config).cloned().unwrap_or_default();
                if let Some(annotations) = document.get("annotations") {
                    goal["annotations"] = annotations.clone();
                }
                goal
            })
            .collect();
        let (found, manifests) = of("").await;
        let told = (found.status, found.header("content-type"));
        cases.is(&format!("{}: referrers", data.name), told, (200, Some(INDEX.into())));
        cases.holds(
            &format!("{}: referrers are these {manifests:?}", data.name),
            manifests.len() == goals.len() && goals.iter().all(|goal| manifests.contains(goal)),
        );
        for goal in &goals {
            let filter = goal["artifactType"].as_str().unwrap().replace('+', "%2B");
            let (found, manifests) = of(&format!("?artifactType={filter}")).await;
            let told = found.header("oci-filters-applied");
            cases.is(&format!("{}: filter {filter}", data.name), told, Some("artifactType".into()));
            let is_right = manifests.iter().all(|one| one["artifactType"] == goal["artifactType"]);
            cases.holds("has it and nothing else", is_right && manifests.contains(goal));
        }
    }
}

async fn delete(world: &World, cases: &mut Cases, data: &Data) {
    let mut places: Vec<String> = Vec::new();
    for pushed in &data.manifests {
        places.extend(pushed.tags.iter().map(|tag| format!("manifests/{tag}")));
    }
    for pushed in data.manifests.iter().rev() {
        places.push(format!("manifests/{}", pushed.digest));
    }
    places.extend(data.blobs.iter().map(|blob| format!("blobs/{}", data.algorithm.of(blob))));
    for place in places {
        let path = format!("/v2/{REPOSITORY}/{place}");
        let gone = world.send("DELETE", &path).await;
        cases.is(&format!("{}: DELETE {place} {}", data.name, gone.text()), gone.status, 202);
        let left = world.status("HEAD", &path).await;
        cases.is(&format!("{}: {place} is gone at once", data.name), left, 404);
    }
}

/// How a blob is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    PostOnly,
    PostPut,
    Stream,
    ChunkedSingle,
    Chunked,
    /// Sends the last chunk with the closing PUT.
    ChunkedPut,
    /// Sends each chunk after one at a wrong position.
    OutOfOrder,
    OutOfOrderPut,
}

const WAYS: [Way; 8] = [
    Way::PostOnly,
    Way::PostPut,
    Way::Stream,
    Way::ChunkedSingle,
    Way::Chunked,
    Way::ChunkedPut,
    Way::OutOfOrder,
    Way::OutOfOrderPut,
];

/// Pushes a blob. Returns the last response.
async fn push_blob(
    world: &World,
    repository: &str,
    way: Way,
    digest: &Digest,
    bytes: &[u8],
) -> Answer {
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    if way == Way::PostOnly {
        let request = world.request("POST", &format!("{uploads}?digest={digest}"));
        return answer(request.body(bytes.to_vec())).await;
    }
    let mut place = world.begin(repository).await;
    let close = |place: &str| world.request("PUT", &format!("{place}?digest={digest}"));
    if way == Way::PostPut {
        return answer(close(&place).body(bytes.to_vec())).await;
    }
    if way == Way::Stream {
        let pieces = bytes.to_vec();
        let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(pieces)]);
        let body = reqwest::Body::wrap_stream(pieces);
        let taken = answer(world.request("PATCH", &place).body(body)).await;
        assert_eq!(taken.status, 202, "{}", taken.text());
        return answer(close(&taken.header("location").unwrap())).await;
    }
    let size = if way == Way::ChunkedSingle { bytes.len() } else { bytes.len() / 3 + 1 };
    let (mut start, is_put) = (0, matches!(way, Way::ChunkedPut | Way::OutOfOrderPut));
    while start < bytes.len() {
        let end = (start + size).min(bytes.len());
        let chunk = |place: &str, start: usize, end: usize| {
            let is_last = is_put && end == bytes.len();
            let request = if is_last { close(place) } else { world.request("PATCH", place) };
            let range = format!("{start}-{}", end - 1);
            answer(request.header("content-range", range).body(bytes[start..end].to_vec()))
        };
        if matches!(way, Way::OutOfOrder | Way::OutOfOrderPut) {
            let wrong = if end < bytes.len() { end } else { 0 };
            let refused = chunk(&place, wrong, (wrong + size).min(bytes.len())).await;
            assert_eq!(refused.status, 416, "{way:?}: {}", refused.text());
            let status = world.get(&place).await;
            let expected = format!("0-{}", start.saturating_sub(1));
            assert_eq!((status.status, status.header("range")), (204, Some(expected)), "{way:?}");
            place = status.header("location").unwrap();
        }
        let taken = chunk(&place, start, end).await;
        if is_put && end == bytes.len() {
            return taken;
        }
        assert_eq!(taken.status, 202, "{way:?}: {}", taken.text());
        place = taken.header("location").unwrap();
        start = end;
    }
    answer(close(&place)).await
}

#[tokio::test]
async fn every_way_to_push_a_blob_takes_both_algorithms() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance suite, blobs");
    for (number, algorithm) in [Algorithm::Sha256, Algorithm::Sha512].into_iter().enumerate() {
        let at = |repository: &str, digest: &Digest| format!("/v2/{repository}/blobs/{digest}");
        let remove = async |cases: &mut Cases, repository: &str, digest: &Digest| {
            let path = at(repository, digest);
            let found = (world.status("DELETE", &path).await, world.status("HEAD", &path).await);
            cases.is("DELETE of a blob, at once", found, (202, 404));
        };
        let contents = [
            ("some bytes", noise(90 + number as u64, 3067)),
            ("nothing", Vec::new()),
            ("{}", b"{}".to_vec()),
        ];
        for (what, bytes) in &contents {
            for way in WAYS {
                let digest = algorithm.of(bytes);
                let claim = format!("{algorithm:?}, {way:?} of {what}");
                let missing = world.get(&at(REPOSITORY, &digest)).await;
                cases.holds(
                    &format!("{claim}: missing before"),
                    missing.is_error(404, "BLOB_UNKNOWN"),
                );
                let done = push_blob(&world, REPOSITORY, way, &digest, bytes).await;
                let told = (done.status, done.header("docker-content-digest"));
                cases.is(&claim, told, (201, Some(digest.to_string())));
                for (method, has_body) in [("HEAD", false), ("GET", true)] {
                    let got = world.send(method, &done.header("location").unwrap()).await;
                    let claim = format!("{claim}: {method}");
                    is_content(&mut cases, &claim, &got, (None, &digest, bytes), has_body);
                }
                remove(&mut cases, REPOSITORY, &digest).await;
                // Bytes that do not match the digest.
                let corrupt = [bytes.as_slice(), b"oh no"].concat();
                let refused = push_blob(&world, REPOSITORY, way, &digest, &corrupt).await;
                let claim = format!("{claim}: a bad digest");
                cases.holds(&claim, refused.is_error(400, "DIGEST_INVALID"));
                let left = world.status("HEAD", &at(REPOSITORY, &digest)).await;
                cases.is(&format!("{claim} leaves nothing"), left, 404);
            }
        }

        // Mounts: from a named source, from any repository, of a missing blob; and an upload that is cancelled.
        let bytes = noise(95 + number as u64, 512);
        let digest = algorithm.of(&bytes);
        let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
        for from in [format!("&from={OTHER}"), String::new()] {
            let mount = format!("{uploads}?mount={digest}{from}");
            let missing = world.send("POST", &mount).await;
            cases.is(&format!("{algorithm:?}, mount of nothing{from}"), missing.status, 202);
            let place = missing.header("location").unwrap();
            let cancelled =
                (world.status("DELETE", &place).await, world.status("GET", &place).await);
            cases.is("an upload is cancelled", cancelled, (204, 404));
            push_blob(&world, OTHER, Way::PostPut, &digest, &bytes).await;
            let mounted = world.send("POST", &mount).await;
            let told = (mounted.status, mounted.header("docker-content-digest"));
            let claim = format!("{algorithm:?}, mount{from}");
            cases.is(&claim, told, (201, Some(digest.to_string())));
            let got = world.get(&mounted.header("location").unwrap()).await;
            is_content(&mut cases, &claim, &got, (None, &digest, &bytes), true);
            remove(&mut cases, REPOSITORY, &digest).await;
            remove(&mut cases, OTHER, &digest).await;
        }

        let bytes = noise(99, 2048);
        let digest = algorithm.of(&bytes);
        push_blob(&world, REPOSITORY, Way::PostOnly, &digest, &bytes).await;
        for (range, expected) in [
            ("500-1499", Some(500..1500)),
            ("500-", Some(500..2048)),
            ("-500", Some(1548..2048)),
            ("2000-5000", Some(2000..2048)),
            ("500-0", None),
            ("5000-10000", None),
        ] {
            let request = world.request("GET", &at(REPOSITORY, &digest));
            let got = answer(request.header("range", format!("bytes={range}"))).await;
            let claim = format!("{algorithm:?}, range {range}");
            let Some(part) = expected else {
                cases.is(&claim, got.status, 416);
                continue;
            };
            let found = (got.status, got.header("content-length"), got.header("content-range"));
            let told = format!("bytes {}-{}/2048", part.start, part.end - 1);
            cases.is(&claim, found, (206, Some(part.len().to_string()), Some(told)));
            cases.holds("has these bytes", got.body == bytes[part]);
        }
        remove(&mut cases, REPOSITORY, &digest).await;
    }
    cases.end();
}

#[tokio::test]
async fn manifests_that_are_missing_or_named_wrongly_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::start(dir.path()).await;
    let mut cases = Cases::of("conformance suite, errors");
    cases.is("ping", world.get("/v2/").await.status, 200);
    let at = |reference: &str| format!("/v2/{REPOSITORY}/manifests/{reference}");
    let absent = Digest::of(b"absent").to_string();
    let tags = world.get(&format!("/v2/{REPOSITORY}/tags/list")).await;
    cases.holds("tags of an empty repository", [200, 404].contains(&tags.status));
    let referrers = world.get(&format!("/v2/{REPOSITORY}/referrers/{absent}")).await;
    let told = (referrers.status, referrers.header("content-type"), referrers.json());
    let nothing = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
    cases.is("referrers in it", told, (200, Some(INDEX.into()), nothing));
    for reference in [absent.as_str(), "missing-abc"] {
        let missing = world.get(&at(reference)).await;
        cases.holds(&format!("GET of {reference}"), missing.is_error(404, "MANIFEST_UNKNOWN"));
    }
    let mut data = Data::of("bad-digest-image");
    let image = data.image("amd64", media_type::LAYER_TAR_GZIP, 1);
    data.push(image, &[]);
    for blob in &data.blobs {
        push_blob(&world, REPOSITORY, Way::PostOnly, &Digest::of(blob), blob).await;
    }
    let Pushed { document, digest, .. } = &data.manifests[0];
    // Trailing white space makes it different content.
    let request = world.request("PUT", &at(digest.as_str())).header("content-type", MANIFEST);
    let spaced = [bytes_of(document), b"  ".to_vec()].concat();
    let refused = answer(request.body(spaced)).await;
    cases.holds("PUT of other bytes", refused.is_error(400, "DIGEST_INVALID"));
    let refused = put(&world, "sha256:baddigeststring", document).await;
    cases.holds("PUT by no digest", refused.is_error(400, "DIGEST_INVALID"));
    let refused = world.get(&at("sha256:baddigeststring")).await;
    cases.holds("GET by no digest", [400, 404].contains(&refused.status));
    cases.is("nothing is there", world.status("HEAD", &at(digest.as_str())).await, 404);
    cases.end();
}
