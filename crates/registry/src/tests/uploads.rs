// SPDX-License-Identifier: AGPL-3.0-or-later
//! Open uploads: their owners and sizes, and ending them by another caller than the owner.

use super::world::{World, answer};
use crate::{Error, OpenUpload, Policy, Storage, Uploader};

fn open(dir: &std::path::Path) -> Storage {
    Storage::open(dir, Policy { keep_free_bytes: 0, ..Policy::default() }).unwrap()
}

fn files(dir: &std::path::Path) -> (usize, usize) {
    let count = |name: &str| std::fs::read_dir(dir.join(name)).unwrap().count();
    (count("uploads"), count("upload-owners"))
}

#[test]
fn an_open_upload_tells_whose_it_is_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = ("os-images/a".parse().unwrap(), "ci/b".parse().unwrap());
    let storage = open(dir.path());
    let ci = Uploader::Publisher("token 1 ci");
    let mut first = storage.begin_upload_by(ci, &one, 0, 1000).unwrap();
    first.append(b"0123456789").unwrap();
    let second = storage.begin_upload_by(Uploader::Admin("root"), &other, 0, 2000).unwrap();
    let told = |storage: &Storage| -> Vec<OpenUpload> {
        let mut told = storage.open_uploads();
        // This time comes from the file system.
        told.iter_mut().for_each(|open| open.written_ms = 0);
        told
    };
    let expected = |is_receiving| {
        let upload = |id, repository: &str, who: &str, begun_ms, bytes| OpenUpload {
            id,
            repository: repository.into(),
            who: who.into(),
            begun_ms,
            written_ms: 0,
            bytes,
            is_receiving,
        };
        [
            upload(first.id, "os-images/a", "token 1 ci", 1000, 10),
            upload(second.id, "ci/b", "root", 2000, 0),
        ]
    };
    let (receiving, waiting) = (expected(true), expected(false));
    assert_eq!(told(&storage), receiving);
    assert!(storage.open_uploads()[0].written_ms > 2000);
    drop((first, second));
    assert_eq!(told(&storage), waiting);
    drop(storage);
    // Files that a crash leaves: from an upload that has ended, and from one whose owner's file was lost.
    let stray = uuid::Uuid::new_v4().to_string();
    std::fs::write(dir.path().join("upload-owners").join(stray), b"{}").unwrap();
    let storage = open(dir.path());
    assert_eq!(told(&storage), waiting);
    assert_eq!(files(dir.path()), (2, 2));
    drop(storage);
    let lost = dir.path().join("upload-owners").join(waiting[1].id.to_string());
    std::fs::write(lost, b"").unwrap();
    let storage = open(dir.path());
    let told = storage.open_uploads();
    let found = told.iter().find(|open| open.id == waiting[1].id).unwrap();
    assert_eq!((found.who.as_str(), found.repository.as_str()), ("", ""));
    // It can still be finished: the owner is only shown to users.
    let upload = storage.continue_upload(&one, waiting[0].id, 0).unwrap();
    let digest = oci::Digest::of(b"0123456789");
    storage.finish_upload(upload, &one, &digest, 0).unwrap();
    assert_eq!(files(dir.path()), (1, 1));
}

#[test]
fn limits_of_a_publisher_hold_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let name = "a".parse().unwrap();
    let fill = |storage: &Storage| {
        let ci = Uploader::Publisher("ci");
        std::iter::from_fn(|| storage.begin_upload_by(ci, &name, 0, 0).ok().map(drop)).count()
    };
    let storage = open(dir.path());
    assert_eq!(fill(&storage), 512);
    drop(storage);
    let storage = open(dir.path());
    assert_eq!(fill(&storage), 0);
    let ids: Vec<_> = storage.open_uploads().iter().map(|open| open.id).collect();
    storage.cancel_open_upload(ids[0]).unwrap();
    assert_eq!(fill(&storage), 1);
    assert_eq!(storage.remove_uploads().unwrap(), 512);
    assert_eq!((fill(&storage), files(dir.path())), (512, (512, 512)));
}

#[test]
fn an_upload_that_is_cancelled_while_it_receives_ends_with_its_next_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let name = "a".parse().unwrap();
    let gone = |done: Result<(), Error>| matches!(done, Err(Error::UploadUnknown));
    let mut upload = storage.begin_upload(&name, 0).unwrap();
    let id = upload.id;
    upload.append(b"before").unwrap();
    assert_eq!(storage.remove_uploads().unwrap(), 0, "a collection leaves it alone");
    storage.cancel_open_upload(id).unwrap();
    assert!(gone(upload.append(b"after")));
    drop(upload);
    assert_eq!(files(dir.path()), (0, 0));
    assert!(gone(storage.continue_upload(&name, id, 0).map(drop)));
    assert!(gone(storage.cancel_open_upload(id)));

    // An upload with all its bytes cannot be finished any more.
    let mut upload = storage.begin_upload(&name, 0).unwrap();
    upload.append(b"all").unwrap();
    storage.cancel_open_upload(upload.id).unwrap();
    let digest = oci::Digest::of(b"all");
    assert!(gone(storage.finish_upload(upload, &name, &digest, 0)));
    assert!(storage.blob_size(&name, &digest).is_err());
    assert_eq!(files(dir.path()), (0, 0));
}

#[tokio::test]
async fn a_publishers_upload_is_found_by_its_token_and_its_end_is_told_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Policy {
        keep_free_bytes: 0,
        uploads: crate::UploadLimits { most: 6, of_one: 2, for_admins: 2 },
        ..Policy::default()
    };
    let world = World::start_with(dir.path(), policy).await;
    let (ci, nightly) = (world.as_bearer("push=ci"), world.as_bearer("push=nightly"));
    let begin = async |bearer: &dyn Fn(&str, &str) -> reqwest::RequestBuilder, name: &str| {
        answer(bearer("POST", &format!("/v2/{name}/blobs/uploads/"))).await
    };
    // Limits are by the name of the token, which is `push` for all callers here, so they share one limit.
    assert_eq!(begin(&ci, "ci/a").await.status, 202);
    assert_eq!(begin(&nightly, "nightly/a").await.status, 202);
    let refused = begin(&ci, "ci/a").await;
    assert!(refused.is_error(429, "TOOMANYREQUESTS"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("push has 2 open uploads"), "{}", refused.text());
    // Admins still have places.
    let admin = |method: &str, path: &str| world.request(method, path);
    for _ in 0..4 {
        assert_eq!(begin(&admin, "x").await.status, 202);
    }
    assert_eq!(begin(&admin, "x").await.status, 429);
}

#[test]
fn an_upload_that_found_no_room_waits_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path());
    let name = "a".parse().unwrap();
    let ci = Uploader::Publisher("ci");
    let mut upload = storage.begin_upload_by(ci, &name, 0, 0).unwrap();
    let id = upload.id;
    upload.append(b"some").unwrap();
    drop(upload);
    for _ in 0..3 {
        let refused = storage.continue_upload(&name, id, u64::MAX / 2).map(drop);
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    }
    let mut upload = storage.continue_upload(&name, id, 0).unwrap();
    upload.append(b"thing").unwrap();
    let digest = oci::Digest::of(b"something");
    storage.finish_upload(upload, &name, &digest, 0).unwrap();
    assert_eq!(files(dir.path()), (0, 0));
}
