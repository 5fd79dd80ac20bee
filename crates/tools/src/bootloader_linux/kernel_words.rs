// SPDX-License-Identifier: AGPL-3.0-or-later
//! Words of a kernel command line that name a device, a volume or an address of the machine on which the image
//! was made. On another machine the initramfs would wait for devices that do not exist. Pure.
//!
//! Sources: dracut.cmdline(7), kernel-command-line(7), initramfs-tools(7), systemd-cryptsetup-generator(8),
//! systemd-veritysetup-generator(8), ostree-prepare-root(1), the ZFS and cryptsetup hooks of Debian and Arch,
//! Documentation/admin-guide/{kernel-parameters.txt,nfs/nfsroot.rst,device-mapper/dm-init.rst} of Linux.

/// Words whose key, the text before `=`, is exactly one of these.
const KEYS: &[&str] = &[
    // The root filesystem, and the file of the kernel.
    "root",
    "rootflags",
    "rootfstype",
    "BOOT_IMAGE",
    "initrd",
    "boot",
    "resume",
    "resume_offset",
    "systemd.mount-extra",
    "systemd.swap-extra",
    "fstab.extra",
    // Volumes.
    "cryptdevice",
    "cryptkey",
    "cryptopts",
    "dmraid",
    "md",
    "dm-mod.create",
    "roothash",
    "usrhash",
    "ostree",
    "zfs",
    "bootfs",
    "loop",
    // A network root filesystem, and addresses.
    "ip",
    "BOOTIF",
    "ifname",
    "bond",
    "bridge",
    "team",
    "vlan",
    "nameserver",
    "netroot",
    "nfsroot",
    "nfsaddrs",
    "nbdroot",
    "fcoe",
    "rd.fcoe",
    "rd.route",
    "rd.neednet",
    "rd.znet",
    "rd.multipath",
    "rd.zfs",
    // The identity of that machine.
    "systemd.machine_id",
    "systemd.hostname",
    // Words for an installer.
    "ks",
    "ks.device",
    "autoinstall",
    "preseed",
    "url",
];

/// Words that begin with one of these. A switch such as `rd.luks=0` names nothing, and is kept.
const PREFIXES: &[&str] = &[
    "rd.lvm.",
    "rd.luks.",
    "rd.md.",
    "rd.dm.",
    "rd.zfs.",
    "rd.iscsi.",
    "rd.nvmf.",
    "rd.nfs.",
    "rd.live.",
    "rd.zfcp",
    "rd.dasd",
    // dracut before 008.
    "rd_LVM_",
    "rd_LUKS_",
    "rd_MD_",
    "rd_DM_",
    "luks.",
    "mount.usr",
    "systemd.verity_",
    "iscsi_",
    "inst.",
    "preseed/",
];

/// Whether a word names something that belongs to another machine.
pub fn is_of_another_machine(word: &str) -> bool {
    let key = word.split('=').next().unwrap_or_default();
    KEYS.contains(&key) || PREFIXES.iter().any(|prefix| word.starts_with(prefix))
}

/// Splits a command line into the words to keep and the words about another machine. Words after `--` are
/// for init, and are kept.
pub fn split(words: Vec<String>) -> (Vec<String>, Vec<String>) {
    let mut is_for_init = false;
    words.into_iter().partition(|word| {
        is_for_init |= word == "--";
        is_for_init || !is_of_another_machine(word)
    })
}

/// Whether the word tells how the root is mounted. Our own command line contains that already.
pub fn is_of_root(word: &str) -> bool {
    matches!(word, "ro" | "rw" | "")
}

/// Joins words into one line that [`super::default_grub::words`] can parse: double quotes around a value with blanks,
/// which are the only quotes that the kernel knows.
pub fn line(words: &[String]) -> String {
    let quoted = |word: &String| match word.split_once('=') {
        Some((key, value)) if value.contains(char::is_whitespace) => format!("{key}=\"{value}\""),
        _ => word.clone(),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_device_volume_or_address_of_another_machine_goes_and_nothing_else() {
        let gone = "root=/dev/mapper/rhel-root root=ZFS=rpool/ROOT rootflags=subvol=@ rootfstype=xfs \
            boot=UUID=1 resume=UUID=2 resume_offset=34816 BOOT_IMAGE=/vmlinuz initrd=/x \
            rd.lvm.lv=rhel/root rd.lvm.vg=rhel rd.luks.uuid=luks-1 rd.luks.name=1=root rd.luks.options=x \
            rd.luks.key=/k rd.md.uuid=1:2 rd.dm.uuid=x rd.zfs=rpool rd.zfs.pool=rpool zfs=rpool/ROOT \
            luks.uuid=1 luks.name=1=x luks.options=y cryptdevice=UUID=1:root cryptkey=rootfs:/k \
            cryptopts=target=x,source=y ip=10.0.0.2::10.0.0.1:255.255.255.0:h:eth0:none ip=dhcp \
            BOOTIF=01-52-54-00-12-34-56 ifname=eth0:52:54:00:12:34:56 rd.route=10.0.0.0/8:10.0.0.1 \
            bond=bond0:eth0,eth1 vlan=a:b team=t:a bridge=b:a nameserver=10.0.0.3 rd.neednet=1 \
            netroot=iscsi:@10.0.0.9::3260::iqn rd.iscsi.initiator=iqn iscsi_target_ip=10.0.0.9 \
            nfsroot=10.0.0.9:/r rd.nvmf.hostnqn=x fcoe=eth0:dcb rd.multipath=default dmraid dmraid=true \
            md=0,/dev/sda1 dm-mod.create=x,,,ro inst.ks=http://x ks=http://x ks.device=eth0 \
            ostree=/ostree/boot.0/x/y/0 mount.usr=UUID=1 mount.usrfstype=xfs systemd.verity_root_data=/dev/x \
            roothash=abc usrhash=abc systemd.machine_id=0123 systemd.hostname=builder rd.live.image \
            rd.zfcp=0.0.1 rd_LVM_LV=a/b rd_LUKS_UUID=1 rd_MD_UUID=1 rd_DM_UUID=1 systemd.mount-extra=a:b";
        let kept = "console=ttyS0,115200n8 console=tty0 quiet splash crashkernel=1G-4G:192M net.ifnames=0 \
            biosdevname=0 rd.luks=0 rd.lvm=0 rd.md=0 rd.dm=0 rd.auto rd.timeout=60 rd.driver.blacklist=nouveau \
            mitigations=off fips=1 rootdelay=10 rootwait systemd.unified_cgroup_hierarchy=1 \
            systemd.gpt_auto=0 selinux=0 enforcing=0 noresume nodmraid hugepages=8 isolcpus=1-3 \
            intel_iommu=on iommu=pt nvme_core.io_timeout=255 elevator=noop loglevel=3 bootdelay=1 \
            ipv6.disable=1 dyndbg=root=1 zswap.enabled=1 rhgb init=/sbin/init panic=10";
        for word in gone.split_whitespace() {
            assert!(is_of_another_machine(word), "{word}");
        }
        for word in kept.split_whitespace() {
            assert!(!is_of_another_machine(word), "{word}");
        }
    }

    #[test]
    fn words_for_init_stay() {
        let words = ["quiet", "root=/dev/sda1", "--", "root=x"].map(str::to_owned).to_vec();
        let (kept, gone) = split(words);
        assert_eq!(
            (kept.join(" "), gone.join(" ")),
            ("quiet -- root=x".into(), "root=/dev/sda1".into())
        );
    }

    #[test]
    fn a_line_reads_back_as_its_words() {
        let words = ["quiet", "dyndbg=file a +p; b", "console=ttyS0"].map(str::to_owned);
        assert_eq!(line(&words), "quiet dyndbg=\"file a +p; b\" console=ttyS0");
        assert_eq!(super::super::default_grub::words(&line(&words)), words);
    }
}
