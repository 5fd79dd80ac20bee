// SPDX-License-Identifier: AGPL-3.0-or-later
//! The image is reproducible, and every reader sees the same files.

#![expect(clippy::disallowed_methods, reason = "tests read and write files")]
#![expect(clippy::unwrap_used, reason = "what fails in a test has failed the test")]

use std::path::Path;
use std::process::Command;

use iso9660::{File, Volume, WriteError, read, to_vec};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn files() -> Vec<File> {
    let file = |name: &str, bytes: &[u8]| File { name: name.into(), bytes: bytes.into() };
    vec![
        file("user-data", b"#cloud-config\nhostname: a\n"),
        file("recipe.json", b"{}\n"),
        file("recipe.schema.json", &[b'x'; 5000]),
        file("KS.CFG", b"vmaccepteula\n"),
        file("empty", b""),
        file("attempt.json", b"{\"a\":1}"),
    ]
}

fn volume() -> Volume {
    Volume { id: "TASK_0198B9C00000700080000000000".into(), epoch_secs: 1_700_000_000 }
}

#[test]
fn the_same_files_give_the_same_bytes_on_every_host() {
    let image = to_vec(&files(), &volume()).unwrap();
    let mut shuffled = files();
    shuffled.reverse();
    assert_eq!(to_vec(&shuffled, &volume()).unwrap(), image);
    let digest = hex::encode(Sha256::digest(&image));
    assert_eq!(digest, include_str!("golden.sha256").trim(), "the released format changed");
    assert!(image.len() < 100_000);
}

#[test]
fn what_is_written_is_read_back() {
    let image = read(&to_vec(&files(), &volume()).unwrap()).unwrap();
    let mut expected = files();
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!((image.volume_id, image.files), (volume().id, expected));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let with = |name: &str| vec![File { name: name.into(), bytes: vec![] }];
    assert_eq!(to_vec(&with("../x"), &volume()), Err(WriteError::Name("../x".into())));
    let twice = [with("a"), with("a")].concat();
    assert_eq!(to_vec(&twice, &volume()), Err(WriteError::Twice("a".into())));
    for id in ["", "lower", &"X".repeat(33)] {
        let volume = Volume { id: id.into(), epoch_secs: 0 };
        assert_eq!(to_vec(&[], &volume), Err(WriteError::VolumeId(id.into())));
    }
}

fn run(program: &str, args: &[&str], dir: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed (./x test installs it): {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn extracted(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn xorriso_bsdtar_and_7z_read_the_same_files_by_their_whole_names() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("task.iso"), to_vec(&files(), &volume()).unwrap()).unwrap();
    let mut expected: Vec<_> = files().into_iter().map(|file| (file.name, file.bytes)).collect();
    expected.sort();
    for (name, program, args) in [
        (
            "xorriso",
            "xorriso",
            vec!["-osirrox", "on", "-indev", "../task.iso", "-extract", "/", "."],
        ),
        (
            "xorriso-joliet",
            "xorriso",
            vec![
                "-read_fs",
                "norock",
                "-osirrox",
                "on",
                "-indev",
                "../task.iso",
                "-extract",
                "/",
                ".",
            ],
        ),
        ("bsdtar", "bsdtar", vec!["-xf", "../task.iso"]),
        ("7z", "7z", vec!["x", "-y", "../task.iso"]),
    ] {
        let out = dir.path().join(name);
        std::fs::create_dir(&out).unwrap();
        run(program, &args, &out);
        assert_eq!(extracted(&out), expected, "{name}");
    }
    let info = run("xorriso", &["-indev", "task.iso", "-pvd_info"], dir.path());
    assert!(info.contains("TASK_0198B9C00000700080000000000"), "{info}");
    // Readers of the plain tree (firmware, the ESXi installer) see 8.3 names.
    let image = std::fs::read(dir.path().join("task.iso")).unwrap();
    for name in ["KS.CFG;1", "RECIPE.JSO;1", "RECIPE_S.JSO;1", "USER_DAT.;1"] {
        assert!(image.windows(name.len()).any(|part| part == name.as_bytes()), "{name}");
    }
    let modes = run("xorriso", &["-indev", "task.iso", "-lsl", "/"], dir.path());
    let listed = modes.lines().filter(|line| line.starts_with("-r--r--r--")).count();
    assert_eq!(listed, expected.len(), "{modes}");
}

proptest! {
    #[test]
    fn any_files_come_back(
        contents in proptest::collection::btree_map("[a-zA-Z0-9._-]{1,64}", proptest::collection::vec(any::<u8>(), 0..5000), 0..40)
    ) {
        let files: Vec<File> = contents
            .into_iter()
            .filter(|(name, _)| name != "." && name != "..")
            .map(|(name, bytes)| File { name, bytes })
            .collect();
        let image = to_vec(&files, &volume()).unwrap();
        prop_assert_eq!(read(&image).unwrap().files, files);
    }

    #[test]
    fn any_bytes_are_answered(mut bytes in proptest::collection::vec(any::<u8>(), 40_000..42_000), at in 0usize..2048) {
        let image = to_vec(&files(), &volume()).unwrap();
        bytes[..36 * 1024].copy_from_slice(&image[..36 * 1024]);
        bytes[17 * 2048 + at] ^= 0xff;
        let _answered = read(&bytes).is_ok();
    }
}
