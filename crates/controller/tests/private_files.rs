// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the program itself: everything that it creates in its data directory is accessible only to the owner,
//! whatever the umask of the process that starts it.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use oci::Digest;
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_shoal-controller");
const MANIFEST: &str = oci::media_type::MANIFEST;

/// A controller that serves; killed when it is dropped.
struct Serving {
    child: Child,
    url: String,
    token: String,
}

impl Serving {
    fn start(data_dir: &Path) -> Serving {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--dangerously-plain-http", "--listen", "localhost:0"])
            .args(["--node-url", "http://127.0.0.1:1", "--data-dir"])
            .arg(data_dir)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut before = Vec::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {before:#?}")).unwrap();
            match line.split_once("listening address=") {
                Some((_, rest)) => break rest.split(' ').next().unwrap().to_owned(),
                None => before.push(line),
            }
        };
        // An unread pipe would block its writer.
        std::thread::spawn(move || lines.for_each(drop));
        let token = fs::read_to_string(data_dir.join("admin-token")).unwrap();
        Serving { child, url: format!("http://{address}"), token }
    }

    async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> reqwest::Response {
        let request = reqwest::Client::new()
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(&self.token)
            .header("content-type", MANIFEST);
        request.body(body).send().await.unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

/// Lists everything below `dir` that users other than the owner can access.
fn open_to_others(dir: &Path) -> Vec<String> {
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let told = |path: PathBuf| format!("{} {:o}", path.display(), mode(&path));
    files(dir).into_iter().filter(|path| mode(path) & 0o077 != 0).map(told).collect()
}

/// Runs the program with these arguments, and expects success.
fn run(words: &[&str], paths: &[(&str, &Path)]) {
    let mut command = Command::new(PROGRAM);
    command.args(words);
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    assert!(command.status().unwrap().success(), "{words:?}");
}

#[tokio::test]
async fn all_files_of_a_controller_are_for_its_owner_only() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (data, restored) = (dir.path().join("data"), dir.path().join("restored"));
    let backup = dir.path().join("backup.tar");
    // The umask of a usual shell, and of a careless service.
    for umask in [0o022, 0o000] {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        fs::remove_dir_all(&data).or_else(ignore_absent).unwrap();
        fs::remove_dir_all(&restored).or_else(ignore_absent).unwrap();
        fs::remove_file(&backup).or_else(ignore_absent).unwrap();

        let serving = Serving::start(&data);
        let layer = b"a layer".to_vec();
        for blob in [b"{}".to_vec(), layer.clone()] {
            let path = format!("/v2/os-images/a/blobs/uploads/?digest={}", Digest::of(&blob));
            assert_eq!(serving.send("POST", &path, blob).await.status(), 201);
        }
        let part = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes).as_str(), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": part(oci::media_type::EMPTY, b"{}"),
            "layers": [part(oci::media_type::LAYER_TAR, &layer)],
        });
        let put =
            serving.send("PUT", "/v2/os-images/a/manifests/13", manifest.to_string().into()).await;
        assert_eq!(put.status(), 201);
        // One that is under way.
        let begun = serving.send("POST", "/v2/os-images/a/blobs/uploads/", Vec::new()).await;
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        assert_eq!(serving.send("PATCH", &place, b"bytes".to_vec()).await.status(), 202);
        let bundle = serving.send("GET", "/api/v1/artifacts/export", Vec::new()).await;
        let bundle = bundle.bytes().await.unwrap().to_vec();
        let imported = serving.send("POST", "/api/v1/artifacts/import", bundle).await;
        assert_eq!(imported.status(), 200);
        run(
            &["backup", "--with-keys", "--with-artifacts"],
            &[("--data-dir", &data), ("--output", &backup)],
        );
        // Including the files that SQLite creates beside its databases.
        let is_log = |path: &PathBuf| path.to_str().unwrap().ends_with("-wal");
        assert!(files(&data).iter().filter(|path| is_log(path)).count() >= 2);
        assert_eq!(open_to_others(dir.path()), Vec::<String>::new(), "umask {umask:o}");
        drop(serving);

        run(&["restore"], &[("--input", &backup), ("--data-dir", &restored)]);
        run(&["rotate-key"], &[("--data-dir", &restored)]);
        drop(Serving::start(&restored));
        assert_eq!(open_to_others(dir.path()), Vec::<String>::new(), "umask {umask:o}");
    }

    // A data directory of a version that created its files readable for all.
    for path in files(&data) {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    assert!(open_to_others(&data).len() > 10);
    let _serving = Serving::start(&data);
    assert_eq!(open_to_others(&data), Vec::<String>::new());
}

fn ignore_absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
