// SPDX-License-Identifier: AGPL-3.0-or-later
//! Installs GRUB on the EFI system partition, in the system's own directory and at the removable path, which
//! firmware starts if it has no boot entry (UEFI 2.10, 3.5.1.1).
//!
//! The image's own signed shim and GRUB are preferred: they boot under Secure Boot, and the system's package manager
//! keeps them up to date. Their configuration must be where they were built to look for it, `/EFI/<vendor>/grub.cfg`.
//! If an image has none, GRUB comes from the tool's container.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::beneath::Root;
use crate::command::{self, Argv};

/// Where the ESP is mounted in the image.
const ESP: &str = "boot/efi";
/// shim and GRUB have 1 to 4 MiB.
const LOADER_BYTES_MAX: u64 = 32 << 20;
/// The file that firmware starts if there is a shim.
pub const SHIM: &str = "shimx64.efi";
const SIGNED_GRUB: &str = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed";
const UNSIGNED_GRUB: &str = "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
/// Ubuntu has used each of these names for its shim.
const SIGNED_SHIM: &[&str] = &[
    "usr/lib/shim/shimx64.efi.dualsigned",
    "usr/lib/shim/shimx64.efi.signed.latest",
    "usr/lib/shim/shimx64.efi.signed",
];
const KEY_MANAGER: &[&str] = &["usr/lib/shim/mmx64.efi.signed", "usr/lib/shim/mmx64.efi"];
const FALLBACK: &[&str] = &["usr/lib/shim/fbx64.efi.signed", "usr/lib/shim/fbx64.efi"];
const FALLBACK_LIST: &[&str] = &["usr/lib/shim/BOOTX64.CSV"];
/// The modules that a GRUB of ours needs to find and read `/boot` on any filesystem of the layout.
const MODULES: &[&str] = &[
    "all_video",
    "boot",
    "btrfs",
    "cat",
    "configfile",
    "echo",
    "efifwsetup",
    "ext2",
    "fat",
    "gzio",
    "halt",
    "help",
    "linux",
    "ls",
    "lzopio",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "reboot",
    "search",
    "search_fs_uuid",
    "search_label",
    "serial",
    "sleep",
    "terminal",
    "test",
    "xfs",
    "xzio",
    "zstd",
];

/// The boot loader of one system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loader {
    /// Its directory in `/EFI`, which is also the name of its boot entry.
    pub vendor: String,
    /// The file in that directory that firmware starts.
    pub file: &'static str,
    pub source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Files of the image, by their names on the ESP.
    Image(BTreeMap<&'static str, PathBuf>),
    /// The image has none: GRUB is built from the container's modules.
    Built,
}

/// Chooses the boot loader.
pub fn choose(root: &Root, id: &str) -> anyhow::Result<Loader> {
    if let Some(loader) = debian(root, id, SIGNED_GRUB, SIGNED_SHIM)? {
        return Ok(loader);
    }
    if let Some(loader) = fedora(root)? {
        return Ok(loader);
    }
    if let Some(loader) = debian(root, id, UNSIGNED_GRUB, &[])? {
        return Ok(loader);
    }
    Ok(Loader { vendor: id.to_owned(), file: "grubx64.efi", source: Source::Built })
}

/// The image's own GRUB. `None` if it is built from the container's modules, which are as recent as the container's
/// mkfs.
pub fn grub(root: &Root, loader: &Loader) -> anyhow::Result<Option<Vec<u8>>> {
    let Source::Image(files) = &loader.source else { return Ok(None) };
    let path = files.get("grubx64.efi").context("the boot loader has no GRUB")?;
    let bytes = root.read(path, LOADER_BYTES_MAX);
    bytes.with_context(|| format!("read /{}", path.display()))
}

/// Installs the boot loader and its configuration on the ESP. Every file is replaced as a whole.
pub fn install(root: &Root, loader: &Loader, stub: &str) -> anyhow::Result<()> {
    let own = Path::new(ESP).join("EFI").join(&loader.vendor);
    let removable = Path::new(ESP).join("EFI/BOOT");
    match &loader.source {
        Source::Image(files) => {
            for (name, from) in files {
                copy(root, from, &own.join(name))?;
            }
            copy(root, &own.join(loader.file), &removable.join("BOOTX64.EFI"))?;
            for name in ["grubx64.efi", "mmx64.efi"] {
                if loader.file != name && files.contains_key(name) {
                    copy(root, &own.join(name), &removable.join(name))?;
                }
            }
        }
        Source::Built => {
            let image = build(&loader.vendor)?;
            for path in [own.join(loader.file), removable.join("BOOTX64.EFI")] {
                root.write(&path, &image, 0o644)
                    .with_context(|| format!("write /{}", path.display()))?;
            }
        }
    }
    // With the fallback loader at the removable path, shim would create boot entries and reset instead of booting.
    root.remove_file(&removable.join("fbx64.efi")).context("remove the fallback loader")?;
    for dir in [own, removable] {
        let path = dir.join("grub.cfg");
        root.write(&path, stub.as_bytes(), 0o644)
            .with_context(|| format!("write /{}", path.display()))?;
    }
    Ok(())
}

/// The boot loader of Debian and Ubuntu, which keep every file of it below `/usr/lib`.
fn debian(root: &Root, id: &str, grub: &str, shims: &[&str]) -> anyhow::Result<Option<Loader>> {
    let grub = PathBuf::from(grub);
    let Some(bytes) =
        root.read(&grub, LOADER_BYTES_MAX).with_context(|| format!("read /{}", grub.display()))?
    else {
        return Ok(None);
    };
    let vendor = built_for(&bytes).unwrap_or_else(|| id.to_owned());
    let mut files = BTreeMap::from([("grubx64.efi", grub)]);
    // A file that exists and cannot be read is an error when it is copied.
    let first = |paths: &[&str]| paths.iter().map(PathBuf::from).find(|path| root.exists(path));
    let Some(shim) = first(shims) else {
        return Ok(Some(Loader { vendor, file: "grubx64.efi", source: Source::Image(files) }));
    };
    files.insert(SHIM, shim);
    for (name, paths) in
        [("mmx64.efi", KEY_MANAGER), ("fbx64.efi", FALLBACK), ("BOOTX64.CSV", FALLBACK_LIST)]
    {
        files.extend(first(paths).map(|path| (name, path)));
    }
    Ok(Some(Loader { vendor, file: SHIM, source: Source::Image(files) }))
}

/// The boot loader of Fedora and its derivatives. Their images contain the files of the ESP: on the ESP itself, or
/// below `/usr/lib` if the package manager may not write to the ESP.
fn fedora(root: &Root) -> anyhow::Result<Option<Loader>> {
    const NAMES: [&str; 5] = [SHIM, "grubx64.efi", "mmx64.efi", "fbx64.efi", "BOOTX64.CSV"];
    let list = |path: &Path| {
        root.list(path).with_context(|| format!("list /{} of the image", path.display()))
    };
    let mut trees = vec![PathBuf::from(ESP), PathBuf::from("usr/lib/bootupd/updates")];
    for package in list(Path::new("usr/lib/efi"))? {
        let package = Path::new("usr/lib/efi").join(package);
        trees.extend(list(&package)?.into_iter().map(|version| package.join(version)));
    }
    let mut vendors: BTreeMap<String, BTreeMap<&'static str, PathBuf>> = BTreeMap::new();
    for tree in trees {
        let tree = tree.join("EFI");
        for vendor in list(&tree)?.into_iter().filter(|vendor| !vendor.eq_ignore_ascii_case("BOOT"))
        {
            let dir = tree.join(&vendor);
            let there = list(&dir)?;
            let files = NAMES.into_iter().filter(|name| there.iter().any(|file| file == name));
            vendors.entry(vendor).or_default().extend(files.map(|name| (name, dir.join(name))));
        }
    }
    let is_whole = |files: &BTreeMap<&str, PathBuf>| {
        files.contains_key(SHIM) && files.contains_key("grubx64.efi")
    };
    vendors.retain(|_, files| is_whole(files));
    let found = vendors.pop_first();
    if let (Some((one, _)), Some((other, _))) = (&found, vendors.pop_first()) {
        bail!("the image has the boot loaders of {one} and of {other}; one must go");
    }
    Ok(found.map(|(vendor, files)| Loader { vendor, file: SHIM, source: Source::Image(files) }))
}

/// The directory in which a GRUB looks for its configuration: it is built with the prefix `/EFI/<vendor>`.
fn built_for(grub: &[u8]) -> Option<String> {
    const PREFIX: &[u8] = b"/EFI/";
    let at = grub.windows(PREFIX.len()).position(|window| window == PREFIX)? + PREFIX.len();
    let is_letter = |byte: &&u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let vendor: Vec<u8> = grub[at..].iter().take_while(is_letter).copied().collect();
    String::from_utf8(vendor).ok().filter(|vendor| !vendor.is_empty())
}

fn build(vendor: &str) -> anyhow::Result<Vec<u8>> {
    let prefix = format!("--prefix=/EFI/{vendor}");
    // A regular file, because grub-mkimage flushes its output, which fails on a pipe.
    let image = std::env::temp_dir().join(format!("shoal-grub-{}.efi", std::process::id()));
    let output = format!("--output={}", image.display());
    let mut argv = Argv::new(["grub-mkimage", "--format=x86_64-efi", &prefix, &output]);
    argv.0.extend(MODULES.iter().map(|module| (*module).to_owned()));
    let built = command::run(&argv)
        .and_then(|_| std::fs::read(&image).with_context(|| format!("read {}", image.display())));
    if let Err(error) = std::fs::remove_file(&image) {
        eprintln!("remove {}: {error}", image.display());
    }
    built.context("build a GRUB, as the image has none")
}

fn copy(root: &Root, from: &Path, to: &Path) -> anyhow::Result<()> {
    if from == to {
        return Ok(());
    }
    let copy = || -> io::Result<()> {
        let mut source = root.file(from)?;
        root.write_from(to, &mut source, 0o644)
    };
    copy().with_context(|| format!("copy /{} to /{}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Image(tempfile::TempDir);

    impl Image {
        fn new(files: &[(&str, &str)]) -> Image {
            let dir = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = dir.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Image(dir)
        }

        /// The files on the ESP after an installation, one line for each.
        fn installed(&self, id: &str) -> String {
            let root = Root::open(self.0.path()).unwrap();
            let loader = choose(&root, id).unwrap();
            install(&root, &loader, "stub").unwrap();
            // A second run changes nothing.
            let again = choose(&root, id).unwrap();
            assert_eq!((again.vendor, again.file), (loader.vendor, loader.file));
            let mut lines = Vec::new();
            for dir in root.list(Path::new("boot/efi/EFI")).unwrap() {
                let dir = Path::new("boot/efi/EFI").join(dir);
                for name in root.list(&dir).unwrap() {
                    let bytes = root.read(&dir.join(&name), LOADER_BYTES_MAX).unwrap().unwrap();
                    let text = match bytes.starts_with(b"MZ") {
                        true => "an EFI program".into(),
                        false => String::from_utf8_lossy(&bytes).into_owned(),
                    };
                    lines.push(format!(
                        "{}/{name} = {text}",
                        dir.strip_prefix("boot/efi/EFI").unwrap().display()
                    ));
                }
            }
            lines.join("\n")
        }
    }

    #[test]
    fn debians_signed_loaders_go_where_they_look_for_each_other() {
        let image = Image::new(&[
            (SIGNED_GRUB, "grub (,gpt1)/EFI/debian\0"),
            ("usr/lib/shim/shimx64.efi.signed", "shim"),
            ("usr/lib/shim/mmx64.efi.signed", "mm"),
            ("usr/lib/shim/fbx64.efi", "fb"),
            ("usr/lib/shim/BOOTX64.CSV", "csv"),
            ("boot/efi/EFI/BOOT/fbx64.efi", "old"),
        ]);
        let expected = "\
BOOT/BOOTX64.EFI = shim
BOOT/grub.cfg = stub
BOOT/grubx64.efi = grub (,gpt1)/EFI/debian\0
BOOT/mmx64.efi = mm
debian/BOOTX64.CSV = csv
debian/fbx64.efi = fb
debian/grub.cfg = stub
debian/grubx64.efi = grub (,gpt1)/EFI/debian\0
debian/mmx64.efi = mm
debian/shimx64.efi = shim";
        // A derivative boots with Debian's loaders, from Debian's directory.
        assert_eq!(image.installed("raspbian"), expected);
    }

    #[test]
    fn ubuntus_shim_is_behind_an_absolute_link() {
        let image = Image::new(&[
            (SIGNED_GRUB, "grub /EFI/ubuntu"),
            ("usr/lib/shim/shimx64.efi.signed.latest", "latest"),
            ("etc/alternatives/x", ""),
        ]);
        let link = image.0.path().join("usr/lib/shim/shimx64.efi.signed");
        std::os::unix::fs::symlink("/usr/lib/shim/shimx64.efi.signed.latest", link).unwrap();
        let expected = "\
BOOT/BOOTX64.EFI = latest
BOOT/grub.cfg = stub
BOOT/grubx64.efi = grub /EFI/ubuntu
ubuntu/grub.cfg = stub
ubuntu/grubx64.efi = grub /EFI/ubuntu
ubuntu/shimx64.efi = latest";
        assert_eq!(image.installed("ubuntu"), expected);
    }

    #[test]
    fn fedoras_loaders_are_taken_from_the_esp_or_from_usr() {
        let on_esp = Image::new(&[
            ("boot/efi/EFI/BOOT/BOOTX64.EFI", "shim"),
            ("boot/efi/EFI/BOOT/fbx64.efi", "fb"),
            ("boot/efi/EFI/fedora/BOOTX64.CSV", "csv"),
            ("boot/efi/EFI/fedora/grubx64.efi", "grub"),
            ("boot/efi/EFI/fedora/mmx64.efi", "mm"),
            ("boot/efi/EFI/fedora/shimx64.efi", "shim"),
        ]);
        let expected = "\
BOOT/BOOTX64.EFI = shim
BOOT/grub.cfg = stub
BOOT/grubx64.efi = grub
BOOT/mmx64.efi = mm
fedora/BOOTX64.CSV = csv
fedora/grub.cfg = stub
fedora/grubx64.efi = grub
fedora/mmx64.efi = mm
fedora/shimx64.efi = shim";
        assert_eq!(on_esp.installed("fedora"), expected);
        let in_usr = Image::new(&[
            ("usr/lib/efi/grub2/1/EFI/fedora/grubx64.efi", "old grub"),
            ("usr/lib/efi/grub2/2/EFI/fedora/grubx64.efi", "grub"),
            ("usr/lib/efi/shim/1/EFI/BOOT/BOOTX64.EFI", "shim"),
            ("usr/lib/efi/shim/1/EFI/fedora/BOOTX64.CSV", "csv"),
            ("usr/lib/efi/shim/1/EFI/fedora/mmx64.efi", "mm"),
            ("usr/lib/efi/shim/1/EFI/fedora/shimx64.efi", "shim"),
        ]);
        assert_eq!(in_usr.installed("fedora"), expected);
    }

    #[test]
    fn an_image_without_a_loader_gets_one_that_is_built() {
        let image = Image::new(&[("etc/os-release", "ID=alpine")]);
        let expected = "\
BOOT/BOOTX64.EFI = an EFI program
BOOT/grub.cfg = stub
alpine/grub.cfg = stub
alpine/grubx64.efi = an EFI program";
        assert_eq!(image.installed("alpine"), expected);
        let built = image.0.path().join("boot/efi/EFI/alpine/grubx64.efi");
        assert_eq!(built_for(&std::fs::read(built).unwrap()).as_deref(), Some("alpine"));
    }
}
