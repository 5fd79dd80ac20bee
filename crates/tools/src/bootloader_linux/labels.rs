// SPDX-License-Identifier: AGPL-3.0-or-later
//! SELinux labels. If an image's archive has none, the installed system may be unable to read its own files. Its
//! first boot then has to create the labels, which `/.autorelabel` requests (fixfiles(8), selinux(8)).

use std::path::Path;

use anyhow::Context;

use super::default_grub::Settings;
use super::system::{self, System};
use crate::beneath::Root;

/// Files that every system has, on each filesystem of a usual layout, and some files that this step writes.
const SAMPLES: &[&str] = &[
    "",
    "etc",
    "etc/fstab",
    "etc/passwd",
    "usr/bin",
    "usr/lib/os-release",
    "usr/lib/systemd/systemd",
    "var/lib",
    "boot",
    "home",
];
/// Programs that create the labels during the first boot, in Fedora and its derivatives and in Debian.
const RELABELLERS: &[&str] = &[
    "usr/libexec/selinux/selinux-autorelabel",
    "usr/lib/systemd/system/selinux-autorelabel.service",
    "usr/lib/systemd/system/selinux-basics.service",
];

/// Requests relabelling during the first boot, if the system enforces or checks labels and some are missing.
pub fn complete(root: &Root, system: &System, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    let mut settings = Settings::default();
    settings.read(&system::text(root, "etc/selinux/config")?);
    let mode = settings.get("SELINUX").unwrap_or_default().to_ascii_lowercase();
    let is_off = system.kernel_words.iter().any(|word| word == "selinux=0");
    if !matches!(mode.as_str(), "enforcing" | "permissive") || is_off {
        return Ok(());
    }
    let mut missing = Vec::new();
    for path in SAMPLES {
        let label = root.label(Path::new(path));
        if label.with_context(|| format!("read the SELinux label of /{path}"))? == Some(None) {
            missing.push(format!("/{path}"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    root.write(Path::new(".autorelabel"), b"", 0o644).context("write /.autorelabel")?;
    let missing = missing.join(", ");
    say(&format!(
        "SELinux is {mode} and {missing} have no label: the first boot makes all labels and restarts"
    ));
    if !RELABELLERS.iter().any(|path| root.exists(Path::new(path))) {
        say(
            "nothing is in the image that makes SELinux labels at the first boot: it may not start",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn labels_are_made_at_the_first_boot_where_they_are_missing_and_looked_at() {
        // Mode, labelled files, word for the kernel; whether labels are to be created.
        for (mode, labelled, word, expected) in [
            ("enforcing", &[][..], "quiet", true),
            ("permissive", &[], "quiet", true),
            ("Enforcing", &["", "etc", "etc/fstab", "usr/bin"], "quiet", false),
            ("enforcing", &["", "etc", "usr/bin"], "quiet", true),
            ("disabled", &[], "quiet", false),
            ("", &[], "quiet", false),
            ("enforcing", &[], "selinux=0", false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for path in ["etc/selinux", "usr/bin"] {
                std::fs::create_dir_all(dir.path().join(path)).unwrap();
            }
            std::fs::write(dir.path().join("etc/fstab"), "").unwrap();
            let config = format!("# how\nSELINUX={mode}\nSELINUXTYPE=targeted\n");
            std::fs::write(dir.path().join("etc/selinux/config"), config).unwrap();
            std::fs::create_dir_all(dir.path().join("etc/default")).unwrap();
            let grub = format!("GRUB_CMDLINE_LINUX={word}\n");
            std::fs::write(dir.path().join("etc/default/grub"), grub).unwrap();
            for path in labelled {
                let flags = XattrFlags::empty();
                let path = dir.path().join(path);
                rustix::fs::setxattr(path, "security.selinux", b"x\0", flags).unwrap();
            }
            let root = Root::open(dir.path()).unwrap();
            let said = RefCell::new(Vec::new());
            let say = |line: &str| said.borrow_mut().push(line.to_owned());
            complete(&root, &system::read(&root).unwrap(), &say).unwrap();
            let is_asked = dir.path().join(".autorelabel").exists();
            assert_eq!(
                (is_asked, said.borrow().len()),
                (expected, usize::from(expected) * 2),
                "{mode}"
            );
        }
    }
}
