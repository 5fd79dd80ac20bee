// SPDX-License-Identifier: AGPL-3.0-or-later
//! The settings of the image that its boot loader depends on.

use std::path::Path;

use anyhow::Context;

use super::default_grub::{Settings, words};
use super::kernel_words;
use crate::beneath::Root;

pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The files from which initramfs-tools reads the swap to resume from (initramfs.conf(5)).
pub const RESUME_CONFIGS: &[&str] =
    &["etc/initramfs-tools/initramfs.conf", "etc/initramfs-tools/conf.d/resume"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// `ID` of os-release(5), checked for use as a directory's name.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// GRUB's directory in `/boot`.
    pub grub_dir: &'static str,
    /// Whether kernels are listed by entries in `/boot/loader/entries` (Boot Loader Specification). The
    /// system itself adds an entry for each new kernel.
    pub has_entries: bool,
    pub settings: Settings,
    /// The kernel command line, without `root=`.
    pub kernel_words: Vec<String>,
    /// Words of the image's command line that are about the machine on which the image was made.
    pub dropped_words: Vec<String>,
}

/// A file of the image as text. Empty if there is none.
pub fn text(root: &Root, path: &str) -> anyhow::Result<String> {
    let bytes = root.read(Path::new(path), CONFIG_BYTES_MAX);
    let bytes = bytes.with_context(|| format!("read /{path} of the image"))?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

pub fn read(root: &Root) -> anyhow::Result<System> {
    let text = |path: &str| text(root, path);
    let mut release = Settings::default();
    for path in ["usr/lib/os-release", "etc/os-release"] {
        release.read(&text(path)?);
    }
    let mut settings = Settings::default();
    settings.read(&text("etc/default/grub")?);
    for name in root.list(Path::new("etc/default/grub.d")).context("list /etc/default/grub.d")? {
        if name.ends_with(".cfg") {
            settings.read(&text(&format!("etc/default/grub.d/{name}"))?);
        }
    }
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let id = release.get("ID").filter(|id| !id.is_empty() && id.chars().all(is_letter));
    let grub_dir = if has(root, "boot/grub2") || has(root, "usr/sbin/grub2-mkconfig") {
        "grub2"
    } else {
        "grub"
    };
    let entries = root.list(Path::new("boot/loader/entries"));
    let has_entries = settings.get("GRUB_ENABLE_BLSCFG") == Some("true")
        || !entries.context("list /boot/loader/entries of the image")?.is_empty();
    let lines = ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"];
    let from_grub: Vec<&str> = lines.iter().filter_map(|name| settings.get(name)).collect();
    let all_words = if from_grub.is_empty() {
        let own = text("etc/kernel/cmdline")?;
        if own.trim().is_empty() { words(&text("usr/lib/kernel/cmdline")?) } else { words(&own) }
    } else {
        words(&from_grub.join(" "))
    };
    let (mut kernel_words, dropped_words) = kernel_words::split(all_words);
    kernel_words.retain(|word| !kernel_words::is_of_root(word));
    if resumes(root)? {
        kernel_words.push("noresume".into());
    }
    Ok(System {
        id: id.unwrap_or("linux").to_owned(),
        name: release.get("PRETTY_NAME").or(release.get("NAME")).unwrap_or("Linux").to_owned(),
        grub_dir,
        has_entries,
        kernel_words,
        dropped_words,
        settings,
    })
}

/// Whether initramfs-tools of the image is configured with a swap to resume from. The initramfs contains that
/// configuration too, so the command line must contain `noresume`.
pub fn resumes(root: &Root) -> anyhow::Result<bool> {
    let mut settings = Settings::default();
    for path in RESUME_CONFIGS {
        settings.read(&text(root, path)?);
    }
    // `none` counts too: an earlier run of this step may have written it.
    Ok(settings.get("RESUME").is_some_and(|value| !matches!(value, "" | "auto")))
}

pub fn has(root: &Root, path: &str) -> bool {
    root.exists(Path::new(path))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let system = read(&Root::open(dir.path()).unwrap()).unwrap();
        let System { id, name, grub_dir, has_entries, kernel_words, dropped_words, .. } = system;
        let (words, dropped) = (kernel_words.join("|"), dropped_words.join("|"));
        let said = format!("{id}, {name}, {grub_dir}, {has_entries}, {words}, dropped: {dropped}");
        assert_eq!(said, expected);
    }

    #[test]
    fn each_family_is_recognised() {
        check(
            &[
                ("etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n"),
                (
                    "etc/default/grub",
                    "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_CMDLINE_LINUX=\"\"\n",
                ),
                (
                    "etc/default/grub.d/50-cloud.cfg",
                    "GRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0 root=LABEL=x ro\"\n",
                ),
                ("etc/default/grub.d/README", "GRUB_CMDLINE_LINUX=wrong\n"),
                ("boot/grub/unicode.pf2", ""),
            ],
            "debian, Debian GNU/Linux 13 (trixie), grub, false, console=tty0|console=ttyS0|quiet, \
             dropped: root=LABEL=x",
        );
        check(
            &[
                ("usr/lib/os-release", "NAME=\"Fedora Linux\"\nID=fedora\n"),
                ("boot/grub2/grubenv", ""),
                ("boot/loader/entries/a.conf", ""),
                ("etc/kernel/cmdline", "root=UUID=old rw no_timer_check console=ttyS0\n"),
            ],
            "fedora, Fedora Linux, grub2, true, no_timer_check|console=ttyS0, dropped: root=UUID=old",
        );
        check(
            &[
                ("usr/lib/os-release", "NAME=RHEL\nID=\"rhel\"\n"),
                ("usr/sbin/grub2-mkconfig", ""),
                (
                    "etc/default/grub",
                    "GRUB_ENABLE_BLSCFG=true\nGRUB_CMDLINE_LINUX=\"crashkernel=1G rd.lvm.lv=rhel/root \
                     resume=/dev/rhel/swap\"\n",
                ),
            ],
            "rhel, RHEL, grub2, true, crashkernel=1G, dropped: rd.lvm.lv=rhel/root|resume=/dev/rhel/swap",
        );
        check(&[("etc/os-release", "ID=../../x\n")], "linux, Linux, grub, false, , dropped: ");
        check(
            &[("etc/initramfs-tools/conf.d/resume", "RESUME=UUID=1\n")],
            "linux, Linux, grub, false, noresume, dropped: ",
        );
    }
}
