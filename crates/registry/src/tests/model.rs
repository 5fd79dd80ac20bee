// SPDX-License-Identifier: AGPL-3.0-or-later
//! Random operations on a registry, compared with a simple model. Acknowledged content stays as long as anything or
//! any client needs it, deleted content is gone, and in the end only reachable content is left. Uploads stay open
//! within the limits of their callers; `null` in a manifest is an absent field.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use oci::{Digest, Manifest, Repository, TagOrDigest, media_type};
use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::world::{digest_of, image, index};
use crate::{Condition, Error, NewManifest, Pace, Policy, Storage, UploadLimits, Uploader};

const DAY_MS: i64 = 24 * 3_600_000;
const REPOSITORIES: [&str; 3] = ["a", "b", "c/d"];
const TAGS: [&str; 3] = ["x", "y", "z"];
/// The callers that begin uploads. The first is an admin.
const CALLERS: [&str; 4] = ["root", "ci", "nightly", "guest"];
/// So low that random operations reach each of them.
const LIMITS: UploadLimits = UploadLimits { most: 8, of_one: 2, for_admins: 3 };

#[derive(Debug, Clone)]
enum Step {
    PushBlob {
        repository: usize,
        blob: u8,
    },
    PushImage {
        repository: usize,
        tag: Option<usize>,
        image: Image,
    },
    Begin {
        repository: usize,
        caller: usize,
    },
    /// Continues an open upload, and finishes it or not.
    Continue {
        which: usize,
        blob: u8,
        is_last: bool,
    },
    Cancel {
        which: usize,
    },
    RemoveUploads,
    /// An index of two images that may exist or not.
    PushIndex {
        repository: usize,
        tag: Option<usize>,
        images: [Image; 2],
        nulls: u8,
    },
    Mount {
        to: usize,
        blob: u8,
    },
    Head {
        repository: usize,
        blob: u8,
    },
    DeleteTag {
        repository: usize,
        tag: usize,
    },
    DeleteImage {
        repository: usize,
        image: Image,
    },
    DeleteBlob {
        repository: usize,
        blob: u8,
    },
    Collect {
        days_later: i64,
    },
    Restart,
}

/// An image of two blobs, with `null` in these optional fields.
#[derive(Debug, Clone, Copy)]
struct Image {
    blobs: (u8, u8),
    nulls: u8,
}

/// Fields that Go programs write as `null` if they are not set.
const NULLS: [&str; 4] = ["annotations", "artifactType", "subject", "manifests"];

fn step() -> impl Strategy<Value = Step> {
    let repository = 0..REPOSITORIES.len();
    let tag = 0..TAGS.len();
    let some_tag = proptest::option::of(0..TAGS.len());
    let blob = 0..4_u8;
    let image = ((0..4_u8, 0..4_u8), prop_oneof![3 => Just(0), 2 => 0..16_u8])
        .prop_map(|(blobs, nulls)| Image { blobs, nulls });
    let which = 0..LIMITS.most;
    prop_oneof![
        4 => (repository.clone(), blob.clone())
            .prop_map(|(repository, blob)| Step::PushBlob { repository, blob }),
        4 => (repository.clone(), some_tag.clone(), image.clone())
            .prop_map(|(repository, tag, image)| Step::PushImage { repository, tag, image }),
        2 => (repository.clone(), some_tag, [image.clone(), image.clone()], 0..16_u8).prop_map(
            |(repository, tag, images, nulls)| Step::PushIndex { repository, tag, images, nulls }
        ),
        2 => (repository.clone(), blob.clone()).prop_map(|(to, blob)| Step::Mount { to, blob }),
        1 => (repository.clone(), blob.clone())
            .prop_map(|(repository, blob)| Step::Head { repository, blob }),
        2 => (repository.clone(), tag)
            .prop_map(|(repository, tag)| Step::DeleteTag { repository, tag }),
        1 => (repository.clone(), image)
            .prop_map(|(repository, image)| Step::DeleteImage { repository, image }),
        1 => (repository.clone(), blob.clone())
            .prop_map(|(repository, blob)| Step::DeleteBlob { repository, blob }),
        4 => (repository, 0..CALLERS.len())
            .prop_map(|(repository, caller)| Step::Begin { repository, caller }),
        3 => (which.clone(), blob, proptest::bool::ANY)
            .prop_map(|(which, blob, is_last)| Step::Continue { which, blob, is_last }),
        1 => which.prop_map(|which| Step::Cancel { which }),
        1 => Just(Step::RemoveUploads),
        3 => (0..12_i64).prop_map(|days_later| Step::Collect { days_later }),
        1 => Just(Step::Restart),
    ]
}

fn bytes(blob: u8) -> Vec<u8> {
    vec![blob; 100 + usize::from(blob)]
}

fn image_of(wanted: Image) -> Value {
    // The config is a blob like the others.
    let (one, two) = wanted.blobs;
    let mut document = image(&[&bytes(two)]);
    document["config"] = super::world::descriptor(media_type::EMPTY, &bytes(one));
    with_nulls(document, wanted.nulls)
}

fn with_nulls(mut document: Value, nulls: u8) -> Value {
    for (number, field) in NULLS.iter().enumerate() {
        if nulls & 1 << number != 0 && document.get(*field).is_none() {
            document[*field] = Value::Null;
        }
    }
    document
}

/// The expected state of one repository.
#[derive(Debug, Default, Clone)]
struct Model {
    /// The time of a blob's last use, from which its lease counts.
    blobs: BTreeMap<Digest, i64>,
    manifests: BTreeMap<Digest, (Value, i64)>,
    tags: BTreeMap<&'static str, Digest>,
}

impl Model {
    fn parts(document: &Value) -> Vec<Digest> {
        let manifest = document["manifests"].as_array();
        let list = document["layers"].as_array().into_iter().chain(manifest).flatten();
        let config = document.get("config");
        list.chain(config).map(|d| d["digest"].as_str().unwrap().parse().unwrap()).collect()
    }

    fn has_parts(&self, document: &Value) -> bool {
        Model::parts(document)
            .iter()
            .all(|part| self.blobs.contains_key(part) || self.manifests.contains_key(part))
    }

    fn is_part(&self, digest: &Digest) -> bool {
        self.manifests.values().any(|(document, _)| Model::parts(document).contains(digest))
    }

    /// Manifests and blobs that a tag reaches.
    fn reach(&self) -> BTreeSet<Digest> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<Digest> = self.tags.values().cloned().collect();
        while let Some(digest) = open.pop() {
            if let Some((document, _)) = self.manifests.get(&digest) {
                open.extend(Model::parts(document));
            }
            reached.insert(digest);
        }
        reached
    }
}

/// An upload that is open.
#[derive(Debug, Clone)]
struct Begun {
    id: Uuid,
    repository: usize,
    caller: usize,
    content: Vec<u8>,
}

struct Life<'a> {
    dir: &'a Path,
    storage: Option<Storage>,
    models: Vec<Model>,
    uploads: Vec<Begun>,
    now_ms: i64,
}

impl Life<'_> {
    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn name(number: usize) -> Repository {
        REPOSITORIES[number].parse().unwrap()
    }

    fn perform(&mut self, step: &Step) {
        match step {
            Step::PushBlob { repository, blob } => {
                let (name, content) = (Self::name(*repository), bytes(*blob));
                let begun = self.storage().begin_upload(&name, 0);
                if self.uploads.len() == LIMITS.most {
                    assert!(matches!(begun, Err(Error::TooManyUploads { .. })));
                    return;
                }
                let mut upload = begun.unwrap();
                upload.append(&content).unwrap();
                let digest = Digest::of(&content);
                self.storage().finish_upload(upload, &name, &digest, self.now_ms).unwrap();
                self.models[*repository].blobs.insert(digest, self.now_ms);
            }
            Step::PushImage { repository, tag, image } => {
                self.put(*repository, *tag, &image_of(*image));
            }
            Step::PushIndex { repository, tag, images, nulls } => {
                let [one, two] = images.map(image_of);
                self.put(*repository, *tag, &with_nulls(index(&[&one, &two]), *nulls));
            }
            Step::Begin { repository, caller } => self.begin(*repository, *caller),
            Step::Continue { which, blob, is_last } => self.go_on(*which, *blob, *is_last),
            Step::Cancel { which } => {
                if *which < self.uploads.len() {
                    let Begun { id, .. } = self.uploads.remove(*which);
                    self.storage().cancel_open_upload(id).unwrap();
                    let again = self.storage().cancel_open_upload(id);
                    assert!(matches!(again, Err(Error::UploadUnknown)));
                }
            }
            Step::RemoveUploads => {
                assert_eq!(self.storage().remove_uploads().unwrap(), self.uploads.len());
                self.uploads.clear();
            }
            Step::Mount { to, blob } => {
                let digest = Digest::of(&bytes(*blob));
                let name = Self::name(*to);
                let mounted = self.storage().mount_blob(&name, &digest, |_| true).unwrap();
                let is_somewhere = self.models.iter().any(|m| m.blobs.contains_key(&digest));
                // The model may forget later than the registry: see `Collect`.
                assert!(is_somewhere || !mounted);
                if mounted {
                    self.models[*to].blobs.insert(digest, self.now_ms);
                }
            }
            Step::Head { repository, blob } => {
                let digest = Digest::of(&bytes(*blob));
                if self.storage().blob_size(&Self::name(*repository), &digest).is_ok() {
                    self.models[*repository].blobs.insert(digest, self.now_ms);
                }
            }
            Step::DeleteTag { repository, tag } => {
                let reference = TagOrDigest::Tag(TAGS[*tag].parse().unwrap());
                let name = Self::name(*repository);
                let deleted = self.storage().delete_manifest(&name, &reference, false);
                let model = &mut self.models[*repository];
                assert_eq!(deleted.is_ok(), model.tags.remove(TAGS[*tag]).is_some());
            }
            Step::DeleteImage { repository, image } => {
                let digest = digest_of(&image_of(*image));
                let reference = TagOrDigest::Digest(digest.clone());
                let name = Self::name(*repository);
                let deleted = self.storage().delete_manifest(&name, &reference, false);
                let model = &mut self.models[*repository];
                match deleted {
                    Ok(()) => {
                        assert!(!model.is_part(&digest));
                        model.manifests.remove(&digest);
                        model.tags.retain(|_, tagged| *tagged != digest);
                    }
                    Err(Error::InUse { .. }) => assert!(model.is_part(&digest)),
                    Err(error) => assert!(!model.manifests.contains_key(&digest), "{error}"),
                }
            }
            Step::DeleteBlob { repository, blob } => {
                let digest = Digest::of(&bytes(*blob));
                let deleted = self.storage().delete_blob(&Self::name(*repository), &digest);
                let model = &mut self.models[*repository];
                match deleted {
                    Ok(()) => assert!(model.blobs.remove(&digest).is_some()),
                    Err(Error::InUse { .. }) => assert!(model.is_part(&digest)),
                    Err(error) => assert!(!model.blobs.contains_key(&digest), "{error}"),
                }
            }
            Step::Collect { days_later } => {
                self.now_ms += days_later * DAY_MS;
                self.storage().collect(&[], self.now_ms).unwrap();
                self.forget_what_may_go();
            }
            Step::Restart => {
                self.storage = None;
                self.storage = Some(open(self.dir));
            }
        }
    }

    fn begin(&mut self, repository: usize, caller: usize) {
        let who = CALLERS[caller];
        let by = if caller == 0 { Uploader::Admin(who) } else { Uploader::Publisher(who) };
        let begun = self.storage().begin_upload_by(by, &Self::name(repository), 0, self.now_ms);
        let own = self.uploads.iter().filter(|begun| begun.caller == caller).count();
        let may = match by {
            Uploader::Admin(_) => self.uploads.len() < LIMITS.most,
            Uploader::Publisher(_) => {
                self.uploads.len() < LIMITS.most - LIMITS.for_admins && own < LIMITS.of_one
            }
        };
        match begun {
            Ok(upload) => {
                assert!(may, "{who} has {own} of {}", self.uploads.len());
                let id = upload.id;
                drop(upload);
                self.uploads.push(Begun { id, repository, caller, content: Vec::new() });
            }
            Err(Error::TooManyUploads { .. }) => {
                assert!(!may, "{who} has {own} of {}", self.uploads.len());
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn go_on(&mut self, which: usize, blob: u8, is_last: bool) {
        let Some(begun) = self.uploads.get_mut(which) else { return };
        let (name, id) = (Self::name(begun.repository), begun.id);
        let storage = self.storage.as_ref().unwrap();
        let mut upload = storage.continue_upload(&name, id, 0).unwrap();
        if !is_last {
            upload.append(&bytes(blob)).unwrap();
            begun.content.extend(bytes(blob));
            return;
        }
        let digest = Digest::of(&begun.content);
        storage.finish_upload(upload, &name, &digest, self.now_ms).unwrap();
        let begun = self.uploads.remove(which);
        self.models[begun.repository].blobs.insert(digest, self.now_ms);
    }

    fn put(&mut self, repository: usize, tag: Option<usize>, document: &Value) {
        let content = serde_json::to_vec(document).unwrap();
        let media_type = document["mediaType"].as_str().unwrap();
        let manifest = Manifest::parse(&content, media_type).unwrap();
        let digest = Digest::of(&content);
        let new = NewManifest { digest: digest.clone(), bytes: content, manifest };
        let name = Self::name(repository);
        let typed: Vec<_> = tag.iter().map(|tag| TAGS[*tag].parse().unwrap()).collect();
        let put = self.storage().put_manifest(&name, &typed, &new, &Condition::None, self.now_ms);
        let now_ms = self.now_ms;
        let model = &mut self.models[repository];
        assert_eq!(put.is_ok(), model.has_parts(document), "{put:?}");
        if put.is_ok() {
            for part in Model::parts(document) {
                model.blobs.entry(part).and_modify(|since| *since = now_ms);
            }
            model.manifests.insert(digest.clone(), (document.clone(), now_ms));
            if let Some(tag) = tag {
                model.tags.insert(TAGS[tag], digest);
            }
        }
    }

    /// Unreachable content whose lease has ended may or may not be gone: the model follows the registry. Everything
    /// else must exist.
    fn forget_what_may_go(&mut self) {
        for number in 0..self.models.len() {
            let name = Self::name(number);
            let reached = self.models[number].reach();
            let manifests: Vec<(Digest, i64)> = self.models[number]
                .manifests
                .iter()
                .map(|(digest, (_, since))| (digest.clone(), *since))
                .collect();
            for (digest, since) in manifests {
                if !self.has_manifest(number, &digest) {
                    let is_old = self.now_ms - since >= 7 * DAY_MS;
                    assert!(!reached.contains(&digest) && is_old, "{name} lost {digest}");
                    self.models[number].manifests.remove(&digest);
                }
            }
            let blobs: Vec<(Digest, i64)> =
                self.models[number].blobs.iter().map(|(d, since)| (d.clone(), *since)).collect();
            for (digest, since) in blobs {
                if !self.has_blob(number, &digest) {
                    let is_old = self.now_ms - since >= DAY_MS;
                    let is_needed = self.models[number].is_part(&digest);
                    assert!(!is_needed && is_old, "{name} lost {digest}");
                    self.models[number].blobs.remove(&digest);
                }
            }
        }
    }

    // Looked up directly in the index, because a request would renew its lease.
    fn has_manifest(&self, number: usize, digest: &Digest) -> bool {
        self.count("manifests", number, digest) == 1
    }

    fn has_blob(&self, number: usize, digest: &Digest) -> bool {
        self.count("blobs", number, digest) == 1
    }

    fn count(&self, table: &str, number: usize, digest: &Digest) -> u32 {
        let sql = format!(
            "SELECT count(*) FROM {table} JOIN contents USING (digest)
             WHERE repository = ?1 AND digest = ?2"
        );
        let key = (REPOSITORIES[number], digest.as_str());
        let index = &self.storage().index;
        index
            .read(|index| index.query_row(&sql, key, |row| row.get(0)))
            .unwrap_or_else(|error: rusqlite::Error| panic!("{error}"))
    }

    /// Asserts that the registry and the model agree on everything.
    fn compare(&self) {
        let mut open: Vec<(Uuid, String, String, u64)> = self
            .storage()
            .open_uploads()
            .into_iter()
            .map(|open| (open.id, open.repository, open.who, open.bytes))
            .collect();
        let mut expected: Vec<(Uuid, String, String, u64)> = self
            .uploads
            .iter()
            .map(|Begun { id, repository, caller, content }| {
                let (repository, who) = (REPOSITORIES[*repository].into(), CALLERS[*caller].into());
                (*id, repository, who, content.len() as u64)
            })
            .collect();
        open.sort();
        expected.sort();
        assert_eq!(open, expected);
        for (number, model) in self.models.iter().enumerate() {
            for digest in model.manifests.keys() {
                assert!(
                    self.has_manifest(number, digest),
                    "{} lost {digest}",
                    REPOSITORIES[number]
                );
            }
            for digest in model.blobs.keys() {
                assert!(self.has_blob(number, digest), "{} lost {digest}", REPOSITORIES[number]);
            }
            for tag in TAGS {
                let reference = TagOrDigest::Tag(tag.parse().unwrap());
                let found = self.storage().find_manifest(&Self::name(number), &reference);
                assert_eq!(found.ok().map(|stored| stored.digest), model.tags.get(tag).cloned());
            }
        }
    }

    /// Runs collections until nothing more is removed. Exactly the content that tags reach must be left, also on
    /// disk.
    fn end(mut self) {
        self.perform(&Step::RemoveUploads);
        assert_eq!(std::fs::read_dir(self.dir.join("uploads")).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(self.dir.join("upload-owners")).unwrap().count(), 0);
        for _ in 0..4 {
            self.perform(&Step::Collect { days_later: 30 });
        }
        let mut contents = BTreeSet::new();
        for model in &self.models {
            let left: BTreeSet<Digest> =
                model.blobs.keys().chain(model.manifests.keys()).cloned().collect();
            assert_eq!(left, model.reach());
            contents.extend(left);
        }
        let files = std::fs::read_dir(self.dir.join("blobs/sha256")).unwrap().count();
        assert_eq!(files, contents.len());
        let scrubbed = self.storage().scrub(Pace::Full).unwrap();
        assert_eq!((scrubbed.rotten, scrubbed.missing), (Vec::new(), Vec::new()));
        assert_eq!(scrubbed.contents_checked, contents.len());
    }
}

fn open(dir: &Path) -> Storage {
    let policy = Policy { keep_free_bytes: 0, uploads: LIMITS, ..Policy::default() };
    Storage::open(dir, policy).unwrap()
}

/// In memory if possible: the model has no power cuts, and fsyncs are slow.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_registry_lives_as_its_model_says(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = directory();
        let models = vec![Model::default(); REPOSITORIES.len()];
        let storage = Some(open(dir.path()));
        let mut life = Life { dir: dir.path(), storage, models, uploads: Vec::new(), now_ms: 0 };
        for step in &steps {
            life.perform(step);
            life.compare();
        }
        life.end();
    }
}
