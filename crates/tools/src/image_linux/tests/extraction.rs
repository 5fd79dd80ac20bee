// SPDX-License-Identifier: AGPL-3.0-or-later
//! Extraction of archives: the results, and paths that must be rejected.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink as make_symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::archive::{archive, directory, file, finish, hardlink, member, pax, symlink};
use super::tree::describe;
use crate::beneath::Root;
use crate::image_linux::extract::Tree;

fn extract(layers: &[&[u8]], into: &Path) -> anyhow::Result<()> {
    let root = Root::open(into)?;
    let mut tree = Tree::new(&root);
    for layer in layers {
        tree.layer(*layer, &|| {})?;
    }
    tree.finish()
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output.stdout
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// The kernel's form of an access control list. The owner and others get nothing beyond `r`.
fn acl(user: u32, group: u32) -> Vec<u8> {
    let entries = [
        (1u16, 6u16, u32::MAX),
        (2, 6, user),
        (4, 4, u32::MAX),
        (8, 5, group),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut value = vec![2, 0, 0, 0];
    for (tag, bits, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Every kind of file that a root filesystem can contain.
fn make_tree(root: &Path) {
    let put = |path: &str, text: &[u8], mode: u32| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    put("etc/passwd", b"root:x:0:0::/:\nanna:x:4242:4243::/:\n", 0o644);
    put("etc/group", b"root:x:0:\nstaff:x:50:\n", 0o644);
    let shadow = put("etc/shadow", b"", 0o640);
    std::os::unix::fs::chown(shadow, Some(0), Some(42)).unwrap();
    let su = put("usr/bin/su", &[7; 100_000], 0o4755);
    fs::hard_link(&su, root.join("usr/bin/su-too")).unwrap();
    std::os::unix::fs::chown(&su, Some(0), Some(8)).unwrap();
    fs::set_permissions(&su, fs::Permissions::from_mode(0o6755)).unwrap();
    let ping = put("usr/bin/ping", b"ping", 0o755);
    set(
        &ping,
        "security.capability",
        &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    );
    let rich = put("srv/rich", b"rich", 0o640);
    set(&rich, "user.comment", b"a\nb\0=c");
    set(&rich, "trusted.note", b"");
    set(&rich, "system.posix_acl_access", &acl(4242, 50));
    let shared = root.join("srv/shared");
    fs::create_dir(&shared).unwrap();
    put("srv/shared/before", b"made before the default list", 0o600);
    set(&shared, "system.posix_acl_default", &acl(5001, 5002));
    set(&shared, "system.posix_acl_access", &acl(5003, 5004));
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o3771)).unwrap();
    let sparse = File::create(root.join("srv/sparse")).unwrap();
    sparse.set_len(50 << 20).unwrap();
    sparse.write_all_at(&[1; 5000], 0).unwrap();
    sparse.write_all_at(&[2; 100_000], 7 << 20).unwrap();
    let many = File::create(root.join("srv/many-holes")).unwrap();
    (0..40).for_each(|n| many.write_all_at(b"x", n << 20).unwrap());
    many.set_len((40 << 20) + 1).unwrap();
    File::create(root.join("srv/hole")).unwrap().set_len(1 << 20).unwrap();
    make_symlink("usr/bin", root.join("bin")).unwrap();
    make_symlink("/nowhere/at/all", root.join("etc/broken")).unwrap();
    make_symlink("x".repeat(300), root.join("etc/long")).unwrap();
    fs::create_dir(root.join("dev")).unwrap();
    let node = |name: &str, kind, major, minor| {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o660);
        rustix::fs::mknodat(CWD, root.join("dev").join(name), kind, mode, device).unwrap();
    };
    node("null", FileType::CharacterDevice, 1, 3);
    node("sda1", FileType::BlockDevice, 8, 1);
    node("far", FileType::CharacterDevice, 300, 70_000);
    node("pipe", FileType::Fifo, 0, 0);
    let long = format!("{}/{}/{}", "d".repeat(90), "e".repeat(90), "f".repeat(200));
    put(&format!("opt/{long}"), b"deep", 0o644);
    put("opt/\u{fc}mlaut \n line", b"odd name", 0o644);
    let old = File::options().write(true).open(root.join("etc/passwd")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    old.set_modified(time).unwrap();
    drop(old);
    fs::create_dir(root.join("empty")).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 },
    };
    for path in ["empty", "srv", "usr", "usr/bin", "bin"] {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, root.join(path), &times, flags).unwrap();
    }
}

#[test]
fn an_archive_of_gnu_tar_comes_out_as_it_went_in() {
    let source = tempfile::tempdir().unwrap();
    make_tree(source.path());
    let whole = describe(source.path());
    let from = source.path().to_str().unwrap();
    let all = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"];
    for (sparse, name) in [
        (vec!["--sparse"], "sparse 1.0"),
        (vec!["--sparse", "--sparse-version=0.1"], "sparse 0.1"),
        (vec!["--sparse", "--sparse-version=0.0"], "sparse 0.0"),
    ] {
        let words = [&["-c", "--format=posix"], &all[..], &sparse, &["-C", from, "."]].concat();
        let into = tempfile::tempdir().unwrap();
        extract(&[&run("tar", &words)], into.path()).unwrap();
        assert_eq!(describe(into.path()), whole, "{name}");
    }
}

/// Formats that cannot hold all metadata are compared with the result of GNU tar.
#[test]
fn other_formats_come_out_as_gnu_tar_extracts_them() {
    let source = tempfile::tempdir().unwrap();
    make_tree(source.path());
    let from = source.path().to_str().unwrap();
    for words in [
        vec!["tar", "-c", "--format=gnu", "--sparse", "-C", from, "."],
        vec!["tar", "-c", "--format=gnu", "-C", from, "."],
        vec!["tar", "-c", "--format=posix", "-C", from, "."],
        vec!["bsdtar", "-c", "--format=pax", "--no-xattrs", "--no-acls", "-C", from, "."],
        vec!["tar", "-c", "--format=ustar", "-C", from, "etc/passwd", "usr", "srv/rich", "dev"],
    ] {
        let archive = run(words[0], &words[1..]);
        let saved = tempfile::NamedTempFile::new().unwrap();
        saved.as_file().write_all(&archive).unwrap();
        let (expected, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = expected.path().to_str().unwrap();
        // Directories that the archive does not contain get the present time.
        let file = saved.path().to_str().unwrap();
        run("tar", &["-x", "-p", "--same-owner", "--numeric-owner", "-f", file, "-C", to]);
        extract(&[&archive], into.path()).unwrap();
        // GNU tar sets the present time on a directory whose members come later, and every program does so on
        // directories that the archive does not contain.
        let without_times = |text: String| -> Vec<String> {
            let is_single = words.contains(&"--format=ustar");
            let rows = text.lines().filter(|row| !is_single || !row.contains(": directory"));
            rows.map(|row| match row.split_once(": directory, ") {
                Some((path, rest)) => {
                    let fields: Vec<&str> = rest.split(", ").collect();
                    [path, fields[0], fields[2]].join(" ")
                }
                None => row.to_owned(),
            })
            .collect()
        };
        let (got, expected) = (describe(into.path()), describe(expected.path()));
        assert_eq!(without_times(got), without_times(expected), "{words:?}");
    }
}

/// bsdtar adds the number to each name in a list; GNU tar writes only names that its own system knows.
#[test]
fn lists_with_names_are_looked_up_in_the_image() {
    let list = "user::rw-\nuser:anna:rw-\ngroup::r--\ngroup:staff:r-x\nmask::rwx\nother::---\n";
    let named = pax(&[("SCHILY.acl.access", list)]);
    let people = file("etc/passwd", "anna:x:4242:1::/:\n");
    let groups = file("etc/group", "staff:x:50:\n");
    let into = tempfile::tempdir().unwrap();
    let layer = archive(&[named.clone(), file("a", "x"), people, groups]);
    extract(&[&layer], into.path()).unwrap();
    let mut value = [0; 256];
    let place = into.path().join("a");
    let length = rustix::fs::lgetxattr(&place, "system.posix_acl_access", &mut value[..]).unwrap();
    assert_eq!(value[..length], acl(4242, 50));
    let into = tempfile::tempdir().unwrap();
    let error = extract(&[&archive(&[named, file("a", "x")])], into.path()).unwrap_err();
    assert!(format!("{error:#}").contains("\"anna\", whom the image does not know"), "{error:#}");
}

#[test]
fn nothing_leaves_the_root() {
    let hostile: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        ("up", vec![file("../out", "x")], "goes up"),
        ("up inside", vec![file("a/../../out", "x")], "goes up"),
        ("up at the end", vec![directory("a/..")], "goes up"),
        ("absolute", vec![file("/out", "x")], ""),
        ("absolute by pax", vec![pax(&[("path", "/out")]), file("a", "x")], ""),
        ("absolute and up", vec![file("/../outside/secret", "x")], "goes up"),
        ("up by pax", vec![pax(&[("path", "../out")]), file("a", "x")], "goes up"),
        ("through an absolute link", vec![symlink("l", "OUTSIDE"), file("l/out", "x")], ""),
        ("through a link up", vec![symlink("l", "../outside"), file("l/out", "x")], ""),
        (
            "through two links",
            vec![symlink("m", ".."), symlink("l", "m/outside"), file("l/out", "x")],
            "",
        ),
        ("a directory through a link", vec![symlink("l", "OUTSIDE"), directory("l/out")], ""),
        (
            "a device through a link",
            vec![symlink("l", "OUTSIDE"), member("l/out", b'3', "", b"")],
            "",
        ),
        ("a link through a link", vec![symlink("l", "OUTSIDE"), symlink("l/out", "x")], ""),
        ("a hard link up", vec![hardlink("a", "../outside/secret")], "goes up"),
        ("a hard link to an absolute path", vec![hardlink("a", "/etc/passwd")], "link to"),
        ("a hard link to a file outside", vec![hardlink("a", "OUTSIDE")], "link to"),
        (
            "a hard link through a link",
            vec![symlink("l", "OUTSIDE"), hardlink("a", "l/secret")],
            "link to",
        ),
        ("a whiteout through a link", vec![symlink("l", "OUTSIDE"), file("l/.wh.secret", "")], ""),
        ("a whiteout of ..", vec![file("a/.wh...", "")], "whiteout of nothing"),
        (
            "links in a ring",
            vec![symlink("l", "m"), symlink("m", "l"), file("l/out", "x")],
            "symbolic links",
        ),
        ("a link up to nothing", vec![symlink("l", "a/../../outside"), file("l/secret", "x")], ""),
        ("a whiteout of nothing", vec![file(".wh.", "")], "whiteout of nothing"),
        ("an opaque link", vec![symlink("l", "OUTSIDE"), file("l/.wh..wh..opq", "")], ""),
        ("a file over the root", vec![file("./", "x")], "can only be a directory"),
        ("a link with data", vec![member("a", b'2', "b", b"data")], "with data"),
        ("a directory with data", vec![member("a", b'5', "", b"data")], "with data"),
        ("an unknown type", vec![member("a", b'Z', "", b"")], "unknown type"),
        ("two sizes", vec![pax(&[("size", "5")]), file("a", "x")], "two sizes"),
        ("two extended headers", vec![pax(&[]), pax(&[]), file("a", "x")], "two extended"),
        ("an announcement of nothing", vec![pax(&[("path", "a")])], "announced"),
        (
            "a list of nonsense",
            vec![pax(&[("SCHILY.acl.access", "x:y:z")]), file("a", "")],
            "not an entry",
        ),
        (
            "a sparse map behind the end",
            vec![
                pax(&[("GNU.sparse.realsize", "3"), ("GNU.sparse.map", "0,1,9,1")]),
                file("a", "xy"),
            ],
            "sparse map",
        ),
        (
            "a sparse map that goes back",
            vec![
                pax(&[("GNU.sparse.realsize", "9"), ("GNU.sparse.map", "5,1,0,1")]),
                file("a", "xy"),
            ],
            "sparse map",
        ),
        (
            "a sparse map around the end of numbers",
            vec![
                pax(&[("GNU.sparse.realsize", "9"), ("GNU.sparse.map", "18446744073709551615,2")]),
                file("a", "xy"),
            ],
            "sparse map",
        ),
    ];
    for (case, members, expected) in hostile {
        let base = tempfile::tempdir().unwrap();
        let (root, outside) = (base.path().join("root"), base.path().join("outside"));
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        let before = describe(&outside);
        let place = outside.to_str().unwrap().to_owned();
        let members: Vec<_> = members.into_iter().map(|bytes| aimed(bytes, &place)).collect();
        match extract(&[&archive(&members)], &root) {
            Ok(()) => assert_eq!(expected, "", "{case} was extracted"),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(!expected.is_empty() && error.contains(expected), "{case}: {error}");
            }
        }
        assert_eq!(describe(&outside), before, "{case}");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2, "{case}");
    }
}

/// Replaces the link target OUTSIDE of a member with that place.
fn aimed(bytes: Vec<u8>, outside: &str) -> Vec<u8> {
    if !bytes[157..].starts_with(b"OUTSIDE") {
        return bytes;
    }
    let mut header: [u8; 512] = bytes[..512].try_into().unwrap();
    header[157..257].fill(0);
    header[157..157 + outside.len()].copy_from_slice(outside.as_bytes());
    finish(header, &bytes[512..])
}

#[test]
fn a_link_is_replaced_and_never_written_through() {
    let base = tempfile::tempdir().unwrap();
    let victim = base.path().join("victim");
    fs::write(&victim, "victim").unwrap();
    let root = base.path().join("root");
    fs::create_dir(&root).unwrap();
    let to = victim.to_str().unwrap();
    for second in [
        file("a", "new"),
        directory("a"),
        symlink("a", "elsewhere"),
        member("a", b'6', "", b""),
        member("a", b'3', "", b""),
    ] {
        extract(&[&archive(&[symlink("a", to), second])], &root).unwrap();
        assert_ne!(fs::read_link(root.join("a")).ok().as_deref(), Some(victim.as_path()));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "victim");
    }
    // A link that stays inside may be a parent.
    let layer = archive(&[directory("usr"), symlink("lib", "usr"), file("lib/x", "x")]);
    extract(&[&layer], &root).unwrap();
    assert_eq!(fs::read_to_string(root.join("usr/x")).unwrap(), "x");
}

#[test]
fn a_damaged_archive_is_refused() {
    let good = archive(&[file("a", "some text"), file("b", "more")]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("cut in a header", good[..300].to_vec()),
        ("cut in data", good[..514].to_vec()),
        ("cut in padding", good[..600].to_vec()),
        ("a changed header", [&good[..50], b"x", &good[51..]].concat()),
        ("more after the end", [&good[..], b"x"].concat()),
        ("no archive at all", vec![b'x'; 1024]),
    ];
    for (case, bytes) in cases {
        let into = tempfile::tempdir().unwrap();
        let error = format!("{:#}", extract(&[&bytes], into.path()).expect_err(case));
        assert!(error.contains("the archive"), "{case}: {error}");
    }
    extract(&[&good], tempfile::tempdir().unwrap().path()).unwrap();
}

#[test]
fn a_layer_hides_what_is_below_it_and_nothing_of_its_own() {
    let first = archive(&[
        directory("keep"),
        file("keep/file", "1"),
        directory("hidden"),
        file("hidden/file", "1"),
        directory("opaque"),
        directory("opaque/old"),
        file("opaque/old/file", "1"),
        file("opaque/mixed", "1"),
        directory("opaque/both"),
        file("opaque/both/old", "1"),
        file("replaced", "1"),
        directory("becomes-file"),
        file("becomes-file/x", "1"),
        symlink("becomes-directory", "keep"),
    ]);
    let second = archive(&[
        file(".wh.hidden", ""),
        directory("opaque"),
        file("opaque/mixed", "2"),
        directory("opaque/both"),
        file("opaque/both/new", "2"),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/late", "2"),
        file("replaced", "2"),
        file("becomes-file", "2"),
        directory("becomes-directory"),
        file("becomes-directory/x", "2"),
        file(".wh.never-there", ""),
    ]);
    let into = tempfile::tempdir().unwrap();
    extract(&[&first, &second], into.path()).unwrap();
    let lines = describe(into.path());
    let got: Vec<&str> = lines.lines().filter_map(|line| line.split(':').next()).collect();
    let expected = [
        "/",
        "/becomes-directory",
        "/becomes-directory/x",
        "/becomes-file",
        "/keep",
        "/keep/file",
        "/opaque",
        "/opaque/both",
        "/opaque/both/new",
        "/opaque/late",
        "/opaque/mixed",
        "/replaced",
    ];
    assert_eq!(got, expected);
    for path in ["opaque/mixed", "replaced", "becomes-file", "opaque/late"] {
        assert_eq!(fs::read_to_string(into.path().join(path)).unwrap(), "2", "{path}");
    }
}

/// Archives of builders in use: each has the same places as an archive with relative names.
#[test]
fn absolute_names_are_below_the_root() {
    let expected = |root: &Path| {
        assert_eq!(fs::read_to_string(root.join("usr/bin/perl5.36")).unwrap(), "perl");
        assert_eq!(fs::read_to_string(root.join("usr/bin/perl")).unwrap(), "perl");
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("/usr/bin"));
        assert_eq!(fs::read_to_string(root.join("run/lock/a")).unwrap(), "through a link");
        assert!(!root.join("usr/old").exists());
        assert_eq!(fs::symlink_metadata(root).unwrap().permissions().mode() & 0o7777, 0o755);
    };
    for prefix in ["", "./", "/", "//"] {
        let name = |path: &str| format!("{prefix}{path}");
        let root = if prefix.is_empty() { "." } else { prefix };
        let first = archive(&[
            directory(root),
            directory(&name("usr/bin")),
            file(&name("usr/bin/perl5.36"), "perl"),
            file(&name("usr/old"), "old"),
            hardlink(&name("usr/bin/perl"), &name("usr/bin/perl5.36")),
            symlink(&name("bin"), "/usr/bin"),
            directory(&name("var")),
            // Links to a directory of a later member, and to none.
            symlink(&name("var/run"), "/run"),
        ]);
        let second = archive(&[
            directory(root),
            directory(&name("var/run/lock")),
            file(&name("var/run/lock/a"), "through a link"),
            file(&name("usr/.wh.old"), ""),
        ]);
        let into = tempfile::tempdir().unwrap();
        fs::set_permissions(into.path(), fs::Permissions::from_mode(0o700)).unwrap();
        extract(&[&first, &second], into.path()).unwrap_or_else(|error| {
            panic!("{prefix:?}: {error:#}");
        });
        expected(into.path());
        let time = fs::metadata(into.path().join("run/lock")).unwrap().modified().unwrap();
        let told = time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(told, 0o14_400_000_000, "a directory below a link has its own time");
    }
}

#[test]
fn a_link_is_followed_within_the_root_whether_its_target_is_there_or_not() {
    for (to, place) in [
        ("/srv/data", "srv/data/x"),
        ("srv/data", "a/srv/data/x"),
        ("../srv", "srv/x"),
        ("../../../srv", "srv/x"),
        ("./b/../c", "a/c/x"),
        ("/a/second", "third/x"),
        ("/", "x"),
        ("..", "x"),
    ] {
        let members = [
            directory("a"),
            symlink("a/second", "../third"),
            symlink("a/l", to),
            file("a/l/x", "x"),
        ];
        let into = tempfile::tempdir().unwrap();
        extract(&[&archive(&members)], into.path()).unwrap();
        assert_eq!(fs::read_to_string(into.path().join(place)).unwrap(), "x", "{to}");
        // A whiteout with either form of the name means the same file.
        for hidden in ["a/l/.wh.x".to_owned(), place.replace("/x", "/.wh.x")] {
            let hidden = if hidden == "x" { ".wh.x".to_owned() } else { hidden };
            let again = tempfile::tempdir().unwrap();
            extract(&[&archive(&members), &archive(&[file(&hidden, "")])], again.path()).unwrap();
            assert!(!again.path().join(place).exists(), "{to}: {hidden}");
            let both = archive(&[file("a/l/x", "2"), file(&hidden, "")]);
            extract(&[&archive(&members), &both], again.path()).unwrap();
            let told = fs::read_to_string(again.path().join(place)).unwrap();
            assert_eq!(told, "2", "{to}: {hidden} of its own layer");
        }
    }
}

#[test]
fn an_incremental_archive_of_gnu_tar_comes_out_as_it_went_in() {
    let source = tempfile::tempdir().unwrap();
    make_tree(source.path());
    let from = source.path().to_str().unwrap();
    let list = tempfile::tempdir().unwrap();
    let whole = describe(source.path());
    for (number, words) in [
        vec!["--format=gnu", "-V", "a label"],
        vec!["--format=posix", "--xattrs", "--xattrs-include=*"],
    ]
    .into_iter()
    .enumerate()
    {
        let list = format!("--listed-incremental={}/{number}", list.path().display());
        let words = [&["-c", &list, "--sparse", "-C", from], &words[..], &["."]].concat();
        let bytes = run("tar", &words);
        let into = tempfile::tempdir().unwrap();
        extract(&[&bytes], into.path()).unwrap();
        if number == 1 {
            assert_eq!(describe(into.path()), whole);
        }
        let names = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.split(", ").next().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(names(&describe(into.path())), names(&whole));
    }
}
