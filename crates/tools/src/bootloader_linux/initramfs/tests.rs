// SPDX-License-Identifier: AGPL-3.0-or-later
//! Kernels and initramfs of images in directories: what is accepted, added, and rejected.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use super::archive::tests::{cpio, gzip, packed};
use super::drivers::Driver;
use super::*;
use crate::bootloader_linux::kernels::{among, tests::bytes};

const VERSION: &str = "6.1-amd64";
const DEP: &str = "\
kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz:
kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz
kernel/drivers/virtio/virtio_ring.ko.xz:
kernel/drivers/nvme/host/nvme-core.ko.xz:
kernel/drivers/nvme/host/nvme.ko.xz: kernel/drivers/nvme/host/nvme-core.ko.xz
kernel/drivers/scsi/mpt2sas/mpt2sas.ko.xz:
";
const BUILT_IN: &str =
    "kernel/fs/ext4/ext4.ko\nkernel/drivers/scsi/sd_mod.ko\nkernel/fs/fat/vfat.ko\n";
const ALIAS: &str = "\
# Aliases extracted from modules themselves.
alias pci:v*d*sv*sd*bc01sc08i02* nvme
alias pci:v00001000d0000006[0-4]sv*sd*bc*sc*i* mpt2sas
alias fs-xfs xfs
alias crc32c crc32c_generic
";
const MODINFO: &str =
    "ext4.alias=fs-ext4\0libahci.license=GPL\0ahci_old.alias=pci:v*d*sv*sd*bc01sc06i01*\0";

/// An image with one kernel, whose initramfs contains `init` and these modules.
struct Image {
    dir: tempfile::TempDir,
}

impl Image {
    fn new(initramfs: &[u8]) -> Image {
        let image = Image { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(image.dir.path().join("usr")).unwrap();
        std::os::unix::fs::symlink("usr/lib", image.dir.path().join("lib")).unwrap();
        image.put("boot/vmlinuz-6.1-amd64", &bytes(4096));
        image.put("boot/initrd.img-6.1-amd64", initramfs);
        for (name, text) in [
            ("modules.dep", DEP),
            ("modules.builtin", BUILT_IN),
            ("modules.alias", ALIAS),
            ("modules.alias.bin", "an index"),
            ("modules.builtin.modinfo", MODINFO),
            ("modules.softdep", "softdep xfs pre: crc32c\n"),
        ] {
            image.put(&format!("usr/lib/modules/{VERSION}/{name}"), text.as_bytes());
        }
        for path in DEP.lines().filter_map(|line| line.split(':').next()) {
            let module = packed("xz", &["-c"], format!("the module {path}").as_bytes());
            image.put(&format!("usr/lib/modules/{VERSION}/{path}"), &module);
        }
        image
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn initramfs(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("boot/initrd.img-6.1-amd64")).unwrap()
    }

    fn contents(&self) -> Contents {
        archive::read(&*self.initramfs(), VERSION).unwrap()
    }

    fn complete(&self, needed: &Needed) -> (Result<(), String>, Vec<String>) {
        let root = Root::open(self.dir.path()).unwrap();
        let mut kernels = among(&root.list(Path::new("boot")).unwrap());
        let said = RefCell::new(Vec::new());
        let say = |text: &str| said.borrow_mut().push(text.to_owned());
        let place = self.dir.path().join("cage");
        let workshop = Workshop::new(self.dir.path(), [].into_iter(), place).unwrap();
        let outcome = check_kernels(&root, &mut kernels, needed, &say)
            .and_then(|()| complete(&root, &workshop, &mut kernels, needed, &say));
        (outcome.map_err(|error| format!("{error:#}")), said.into_inner())
    }
}

fn driver(module: &str, modalias: &str, is_module: bool) -> Driver {
    let modalias = (!modalias.is_empty()).then(|| modalias.to_owned());
    Driver { device: "0000:00:04.0".into(), module: module.into(), modalias, is_module }
}

fn needed(filesystem: &str, drivers: &[Driver]) -> Needed {
    let later = ["vfat".to_owned()].into();
    Needed { drivers: drivers.to_vec(), filesystem: filesystem.into(), later }
}

const NVME: &str = "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02";
const SAS3: &str = "pci:v00001000d00000097sv00001000sd00003000bc01sc07i00";
const SAS2: &str = "pci:v00001000d00000064sv00001000sd00003000bc01sc07i00";
const AHCI: &str = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";

#[test]
fn a_kernel_without_a_driver_for_the_disk_or_filesystem_is_refused() {
    let whole = cpio(&["init"]);
    for (case, filesystem, drivers, expected) in [
        ("all loadable", "xfs", vec![driver("nvme", NVME, true)], None),
        ("all built in", "ext4", vec![driver("sd_mod", "scsi:t-0x00", true)], None),
        ("another name for a device", "ext4", vec![driver("mpt3sas", SAS2, true)], None),
        ("another name, built in", "ext4", vec![driver("ahci", AHCI, true)], None),
        ("built in here, in no list there", "ext4", vec![driver("pcieportdrv", "", false)], None),
        (
            "no driver",
            "ext4",
            vec![driver("nvme", NVME, true), driver("mpt3sas", SAS3, true)],
            Some("no driver mpt3sas for 0000:00:04.0 (pci:v00001000d00000097"),
        ),
        ("no driver, no modalias", "ext4", vec![driver("dm_x", "", true)], Some("no driver dm_x")),
        ("no filesystem", "btrfs", vec![], Some("kernel 6.1-amd64 has no filesystem btrfs;")),
        ("both", "btrfs", vec![driver("q", "", true)], Some("modalias), and no filesystem btrfs")),
    ] {
        let image = Image::new(&whole);
        let (outcome, _) = image.complete(&needed(filesystem, &drivers));
        match expected {
            None => outcome.unwrap_or_else(|error| panic!("{case}: {error}")),
            Some(expected) => {
                let error = outcome.unwrap_err();
                assert!(error.contains(expected), "{case}: {error}");
                assert_eq!(image.initramfs(), whole, "{case}");
            }
        }
    }
    let image = Image::new(&whole);
    let mut later = needed("ext4", &[]);
    later.later.insert("ntfs3".into());
    assert!(image.complete(&later).0.unwrap_err().contains("no filesystem ntfs3"));
}

#[test]
fn a_kernel_whose_drivers_are_unknown_is_refused() {
    for (lost, config, expected) in [
        (vec!["modules.dep"], "", Some("has no /lib/modules/6.1-amd64/modules.dep")),
        (vec!["modules.builtin"], "", Some("has no /lib/modules/6.1-amd64/modules.builtin")),
        (vec!["modules.dep", "modules.builtin"], "", Some("modules.dep")),
        (vec!["modules.dep", "modules.builtin"], "CONFIG_MODULES=y\n", Some("modules.dep")),
        (vec!["modules.dep", "modules.builtin"], "# CONFIG_MODULES is not set\n", None),
    ] {
        let image = Image::new(&cpio(&["init"]));
        image.put("boot/config-6.1-amd64", config.as_bytes());
        for name in &lost {
            let dir = image.dir.path().join("usr/lib/modules").join(VERSION);
            fs::remove_file(dir.join(name)).unwrap();
        }
        let (outcome, _) = image.complete(&needed("ext4", &[driver("nvme", NVME, true)]));
        let is_expected = match (&outcome, expected) {
            (Ok(()), None) => true,
            (Err(error), Some(expected)) => error.contains(expected),
            _ => false,
        };
        assert!(is_expected, "{lost:?} {config}: {outcome:?}");
    }
}

#[test]
fn a_second_kernel_that_would_not_boot_is_left_out() {
    let image =
        Image::new(&cpio(&["init", "lib/modules/6.1-amd64/kernel/drivers/nvme/nvme.ko.xz"]));
    image.put("boot/vmlinuz-5.10", &bytes(4096));
    image.put("boot/vmlinuz-5.9", b"");
    for name in ["modules.dep", "modules.builtin"] {
        image.put(&format!("usr/lib/modules/5.10/{name}"), b"kernel/fs/ext4/ext4.ko:\n");
    }
    let root = Root::open(image.dir.path()).unwrap();
    let mut kernels = among(&root.list(Path::new("boot")).unwrap());
    let said = RefCell::new(Vec::new());
    let needed = needed("ext4", &[driver("nvme", NVME, true)]);
    let say = |text: &str| said.borrow_mut().push(text.to_owned());
    check_kernels(&root, &mut kernels, &needed, &say).unwrap();
    let versions: Vec<_> = kernels.iter().map(|kernel| kernel.version.as_str()).collect();
    assert_eq!(versions, [VERSION]);
    let said = said.into_inner();
    assert!(said[0].contains("kernel 5.10 has no driver nvme"), "{said:?}");
    assert!(said[1].contains("vmlinuz-5.9 of the image is empty"), "{said:?}");
}

#[test]
fn an_initramfs_that_nothing_is_in_or_that_is_cut_off_is_refused() {
    let whole = gzip(&cpio(&["init", "bin/sh"]));
    for (case, bytes, expected) in [
        ("empty", &b""[..], "it is empty"),
        ("zeros", &[0; 2048], "it is empty"),
        ("without init", &cpio(&["bin/sh"]), "it has no /init"),
        ("cut off", &whole[..whole.len() - 12], "is damaged"),
    ] {
        let (outcome, _) = Image::new(bytes).complete(&needed("ext4", &[]));
        let error = outcome.unwrap_err();
        let is_named =
            error.contains("/boot/initrd.img-6.1-amd64, the initramfs of kernel 6.1-amd64");
        assert!(is_named && error.contains(expected), "{case}: {error}");
    }
}

#[test]
fn what_an_initramfs_lacks_is_added_with_what_it_needs() {
    let main =
        ["lib->usr/lib", "init", "usr/lib/modules/6.1-amd64/kernel/drivers/block/virtio_blk.ko.xz"];
    let wanted = needed("xfs", &[driver("nvme", NVME, true), driver("virtio_blk", "", true)]);
    for (form, bytes) in [
        ("plain", cpio(&main)),
        ("gzip", gzip(&cpio(&main))),
        ("zstd", zstd::encode_all(&*cpio(&main), 1).unwrap()),
        ("xz", packed("xz", &["--check=crc32", "-c"], &cpio(&main))),
    ] {
        let image = Image::new(&bytes);
        let (outcome, said) = image.complete(&wanted);
        outcome.unwrap_or_else(|error| panic!("{form}: {error}"));
        let expected =
            "the initramfs of kernel 6.1-amd64 lacks libcrc32c, nvme, nvme_core, xfs: added";
        assert_eq!(said, [expected], "{form}");
        let after = image.initramfs();
        assert_eq!(after[..bytes.len()], bytes, "{form}: what was there stays");
        let modules: Vec<_> = image.contents().modules.into_iter().collect();
        let expected = [
            "kernel/crypto/crc32c_generic.ko.xz",
            "kernel/drivers/block/virtio_blk.ko.xz",
            "kernel/drivers/nvme/host/nvme-core.ko.xz",
            "kernel/drivers/nvme/host/nvme.ko.xz",
            "kernel/fs/xfs/xfs.ko.xz",
            "kernel/lib/libcrc32c.ko.xz",
        ];
        assert_eq!(modules, expected, "{form}");
        let text = String::from_utf8_lossy(&after[bytes.len()..]).into_owned();
        assert!(text.contains("usr/lib/modules/6.1-amd64/modules.alias.bin"), "{form}");
        assert!(!text.contains("mpt2sas.ko"), "{form}: modules.dep has what is inside alone");
        image.complete(&wanted).0.unwrap();
        assert_eq!(image.initramfs(), after, "{form}: a rerun changes nothing");
    }
}

#[test]
fn modules_are_unpacked_where_those_inside_are() {
    let image =
        Image::new(&cpio(&["init", "lib/modules/6.1-amd64/kernel/drivers/block/virtio_blk.ko"]));
    image.complete(&needed("ext4", &[driver("nvme", NVME, true)])).0.unwrap();
    let modules: Vec<_> = image.contents().modules.into_iter().collect();
    let expected = [
        "kernel/drivers/block/virtio_blk.ko",
        "kernel/drivers/nvme/host/nvme-core.ko",
        "kernel/drivers/nvme/host/nvme.ko",
    ];
    assert_eq!(modules, expected);
    let text = String::from_utf8_lossy(&image.initramfs()).into_owned();
    assert!(text.contains("the module kernel/drivers/nvme/host/nvme.ko.xz"));
    let line = "kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn what_can_neither_be_read_nor_made_anew_is_told() {
    let image = Image::new(&[&cpio(&["kernel/x86/microcode/a.bin"])[..], b"BZh91AY&SY"].concat());
    let (outcome, said) = image.complete(&needed("xfs", &[]));
    outcome.unwrap();
    let said = &said[1..];
    assert!(said[0].contains("is packed in a way that is not read here (bzip2)"), "{said:?}");
    let image = Image::new(&cpio(&["init"]));
    fs::remove_file(image.dir.path().join("boot/initrd.img-6.1-amd64")).unwrap();
    let error = image.complete(&needed("ext4", &[])).0.unwrap_err();
    assert!(
        error.contains("it is missing; the image has neither mkinitramfs nor dracut"),
        "{error}"
    );
}

#[test]
fn a_hostile_list_of_modules_leads_nowhere() {
    let image = Image::new(&cpio(&["init"]));
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "a secret").unwrap();
    let dir = format!("usr/lib/modules/{VERSION}");
    for (case, path) in [("up", "../../../../../etc/nvme.ko"), ("absolute", "/etc/nvme.ko")] {
        image.put(&format!("{dir}/modules.dep"), format!("{path}:\n").as_bytes());
        let error = image.complete(&needed("ext4", &[driver("nvme", NVME, true)])).0.unwrap_err();
        assert!(error.contains("odd path"), "{case}: {error}");
    }
    image.put(&format!("{dir}/modules.dep"), b"kernel/link.ko:\n");
    std::os::unix::fs::symlink(outside.path(), image.dir.path().join(&dir).join("kernel/link.ko"))
        .unwrap();
    let error = image.complete(&needed("ext4", &[driver("link", "", true)])).0.unwrap_err();
    assert!(error.contains("read the module link"), "{error}");
}
