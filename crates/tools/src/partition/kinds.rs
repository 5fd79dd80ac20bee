// SPDX-License-Identifier: AGPL-3.0-or-later
//! The consent that a recipe needs to destroy each kind of content. The table is closed: `"any"` does not cover a name
//! that is not listed.

/// The consent that is needed to destroy something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Uses this disk only: `"any"` is enough.
    Own,
    /// Part of something larger, whose other parts may be on disks that do not belong to this job, or something whose
    /// content cannot be examined: the recipe must name it.
    Named,
    /// A member of an array: no recipe can consent. An array that is not assembled here may belong to another machine,
    /// or to this one with its data on the other disks. Somebody who knows the array must take it apart first.
    Array,
    /// Other machines may be using it through another path: no recipe can consent.
    Shared,
}

/// Our own names for what libblkid has no name for.
pub const UNKNOWN_DATA: &str = "unknown-data";
pub const UNKNOWN_TABLE: &str = "unknown-table";
pub const UNREADABLE_GPT: &str = "gpt-unreadable";
pub const BEYOND_END: &str = "partition-beyond-end";
pub const BTRFS_DEVICES: &str = "btrfs-multi-device";

/// Every name of libblkid up to 2.41 (`blkid -k`, and its partition tables).
const CLASSES: &[(Class, &[&str])] = &[
    (
        Class::Own,
        &[
            // Tables whose partitions are examined.
            "gpt",
            "PMBR",
            "dos",
            // Filesystems on one device.
            "bfs",
            "befs",
            "btrfs",
            "cramfs",
            "erofs",
            "exfat",
            "ext2",
            "ext3",
            "ext4",
            "ext4dev",
            "f2fs",
            "hfs",
            "hfsplus",
            "hpfs",
            "iso9660",
            "jfs",
            "minix",
            "nilfs2",
            "ntfs",
            "reiser4",
            "reiserfs",
            "romfs",
            "squashfs",
            "squashfs3",
            "sysv",
            "udf",
            "ufs",
            "vfat",
            "xenix",
            "xfs",
            "zonefs",
            // Encryption and swap that belong to this machine.
            "BitLocker",
            "crypto_LUKS",
            "swap",
            "swsuspend",
            UNKNOWN_DATA,
        ],
    ),
    (
        Class::Named,
        &[
            // Volume managers and pools.
            "LVM1_member",
            "LVM2_member",
            "bcache",
            "bcachefs",
            "ceph_bluestore",
            "mpool",
            "nss",
            "stratis",
            "zfs_member",
            // Journals, hashes and snapshots for data that is elsewhere.
            "DM_integrity",
            "DM_snapshot_cow",
            "DM_verity_hash",
            "drbdproxy_datalog",
            "jbd",
            "vdo",
            "xfs_external_log",
            // May span several disks: Apple's Fusion drives, Storage Spaces, volumes of SGI and Veritas, flash.
            "ReFS",
            "apfs",
            "cs_fvault2",
            "exfs",
            "ubi",
            "ubifs",
            "vxfs",
            // Tables whose partitions are not examined.
            "aix",
            "atari",
            "bsd",
            "dasd",
            "mac",
            "sgi",
            "solaris",
            "sun",
            "ultrix",
            "unixware",
            UNKNOWN_TABLE,
            UNREADABLE_GPT,
            BEYOND_END,
            BTRFS_DEVICES,
        ],
    ),
    (
        Class::Array,
        &[
            "adaptec_raid_member",
            "ddf_raid_member",
            "hpt37x_raid_member",
            "hpt45x_raid_member",
            "isw_raid_member",
            "jmicron_raid_member",
            "linux_raid_member",
            "lsi_mega_raid_member",
            "nvidia_raid_member",
            "promise_fasttrack_raid_member",
            "silicon_medley_raid_member",
            "via_raid_member",
        ],
    ),
    (
        Class::Shared,
        &[
            "VMFS",
            "VMFS_volume_member",
            "drbd",
            "drbdmanage_control_volume",
            "gfs",
            "gfs2",
            "lustre",
            "mpath_member",
            "ocfs",
            "ocfs2",
            "opensvc_hb",
            "oracleasm",
            "scoutfs_data",
            "scoutfs_meta",
        ],
    ),
];

/// The class of a name. A name that is not in the table comes from a newer libblkid.
pub fn class(word: &str) -> Class {
    let known = CLASSES.iter().find(|(_, words)| words.contains(&word));
    match known {
        Some((class, _)) => *class,
        None if word.ends_with("_raid_member") => Class::Array,
        None => TYPES.iter().find(|kind| kind.word == word).map_or(Class::Named, |kind| kind.class),
    }
}

/// A partition type for parts of something larger, whatever is recognised in the partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Type {
    pub word: &'static str,
    pub class: Class,
    /// libblkid's name with the same meaning, if it has one.
    same_as: &'static str,
    guids: &'static [&'static str],
    /// Types in a master boot record.
    codes: &'static [u8],
}

const fn kind(
    word: &'static str,
    class: Class,
    same_as: &'static str,
    guids: &'static [&'static str],
    codes: &'static [u8],
) -> Type {
    Type { word, class, same_as, guids, codes }
}

/// GUIDs from the documents of those who assigned them. sgdisk and libblkid list them too.
const TYPES: &[Type] = &[
    kind(
        "a VMFS partition",
        Class::Shared,
        "VMFS_volume_member",
        &["aa31e02a-400f-11db-9590-000c2911d1b8"],
        &[0xfb],
    ),
    kind(
        "a VMware diagnostic partition",
        Class::Shared,
        "",
        &["9d275380-40ad-11db-bf97-000c2911d1b8"],
        &[0xfc],
    ),
    kind("a vSAN partition", Class::Shared, "", &["381cfccc-7288-11e0-92ee-000c2911d0b2"], &[]),
    kind(
        "a VMware virsto partition",
        Class::Shared,
        "",
        &["77719a0c-a4a0-11e3-a47e-000c29745a24"],
        &[],
    ),
    kind(
        "an IBM GPFS partition",
        Class::Shared,
        "",
        &["37affc90-ef7d-4e96-91c3-2d7ae055b174"],
        &[],
    ),
    kind(
        "linux_raid_type",
        Class::Named,
        "linux_raid_member",
        &["a19d880f-05fc-4d3b-a006-743f0f84911e"],
        &[0xfd],
    ),
    kind(
        "lvm_type",
        Class::Named,
        "LVM2_member",
        &["e6d6d379-f507-44c2-a23c-238f2a3df928"],
        &[0x8e],
    ),
    kind(
        "zfs_type",
        Class::Named,
        "zfs_member",
        // Solaris' /usr, which ZFS on Linux and macOS use; FreeBSD's.
        &["6a898cc3-1dd2-11b2-99a6-080020736631", "516e7cba-6ecf-11d6-8ff8-00022d09712b"],
        &[],
    ),
    kind("storage_spaces", Class::Named, "", &["e75caf8f-f680-4cee-afa3-b001e56efc2d"], &[]),
    kind("storage_replica", Class::Named, "", &["558d43c5-a1ac-43c0-aac8-d1472b2923d1"], &[]),
    kind(
        "ldm",
        Class::Named,
        "",
        &["5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "af9b60a0-1431-4f62-bc68-3311714a69ad"],
        &[0x42],
    ),
    kind(
        "apple_raid",
        Class::Named,
        "",
        &["52414944-0000-11aa-aa11-00306543ecac", "52414944-5f4f-11aa-aa11-00306543ecac"],
        &[],
    ),
    kind("apple_core_storage", Class::Named, "", &["53746f72-6167-11aa-aa11-00306543ecac"], &[]),
    kind("vinum", Class::Named, "", &["516e7cb8-6ecf-11d6-8ff8-00022d09712b"], &[]),
    kind(
        "netbsd_raid",
        Class::Named,
        "",
        &["49f48daa-b10e-11dc-b99b-0019d1879648", "2db519c4-b10f-11dc-b99b-0019d1879648"],
        &[],
    ),
    kind(
        "ceph_type",
        Class::Named,
        "ceph_bluestore",
        // ceph-disk's: journal, data, block, database and log, plain, encrypted and by multipath.
        &[
            "45b0969e-9b03-4f30-b4c6-b4b80ceff106",
            "45b0969e-9b03-4f30-b4c6-5ec00ceff106",
            "45b0969e-8ae0-4982-bf9d-5a8d867af560",
            "45b0969e-9b03-4f30-b4c6-35865ceff106",
            "4fbd7e29-9d25-41b8-afd0-062c0ceff05d",
            "4fbd7e29-9d25-41b8-afd0-5ec00ceff05d",
            "4fbd7e29-9d25-41b8-afd0-35865ceff05d",
            "4fbd7e29-8ae0-4982-bf9d-5a8d867af560",
            "cafecafe-9b03-4f30-b4c6-b4b80ceff106",
            "cafecafe-9b03-4f30-b4c6-5ec00ceff106",
            "cafecafe-9b03-4f30-b4c6-35865ceff106",
            "cafecafe-8ae0-4982-bf9d-5a8d867af560",
            "30cd0809-c2b2-499c-8879-2d6b78529876",
            "93b0052d-02d9-4d8a-a43b-33a3ee4dfbc3",
            "7f4a666a-16f3-47a2-8445-152ef4d03f6c",
            "5ce17fce-4087-4169-b7ff-056cc58473f9",
            "01b41e1b-002a-453c-9f17-88793989ff8f",
            "306e8683-4fe2-4330-b7c0-00a917c16966",
            "ec6d6385-e346-45dc-be91-da2a7c8b3261",
        ],
        &[],
    ),
];

/// Partitions with a boot loader's code, or reserved ones: they have no signature, and are not data. BIOS
/// boot, PReP boot, Microsoft reserved.
const CODE: &[&str] = &[
    "21686148-6449-6e6f-744e-656564454649",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae",
];

/// A partition's type, in either kind of table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TypeOf {
    Gpt(String),
    Mbr(u8),
}

/// The name that a partition's type adds to the names of the signatures in it.
pub fn word_of_type(kind: &TypeOf, signatures: &[&str]) -> Option<&'static str> {
    let is_it = |known: &&Type| match kind {
        TypeOf::Gpt(guid) => known.guids.contains(&guid.as_str()),
        TypeOf::Mbr(code) => known.codes.contains(code),
    };
    let known = TYPES.iter().find(is_it)?;
    (!signatures.contains(&known.same_as)).then_some(known.word)
}

pub fn is_code(kind: &TypeOf) -> bool {
    matches!(kind, TypeOf::Gpt(guid) if CODE.contains(&guid.as_str()))
}

/// Whether this is the name of a table, whose content is in its partitions.
pub fn is_table(word: &str) -> bool {
    matches!(word, "gpt" | "PMBR" | "dos" | UNREADABLE_GPT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    use super::*;

    #[test]
    fn every_word_of_this_libblkid_is_in_the_table_once() {
        let output = Command::new("blkid").arg("-k").output().unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        assert!(words.lines().count() > 60, "{words}");
        let listed: Vec<&str> = CLASSES.iter().flat_map(|(_, words)| *words).copied().collect();
        for word in words.lines() {
            assert!(listed.contains(&word), "{word}");
        }
        let once: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(once.len(), listed.len());
    }

    #[test]
    fn a_word_that_nobody_listed_is_no_consent() {
        for (word, expected) in [
            ("ext4", Class::Own),
            ("unknown-data", Class::Own),
            ("LVM2_member", Class::Named),
            ("somefs", Class::Named),
            ("some_member", Class::Named),
            ("gpt-unreadable", Class::Named),
            ("some_raid_member", Class::Array),
            ("isw_raid_member", Class::Array),
            ("ocfs2", Class::Shared),
            ("a vSAN partition", Class::Shared),
            ("ldm", Class::Named),
        ] {
            assert_eq!(class(word), expected, "{word}");
        }
    }

    #[test]
    fn types_are_words_unless_the_signature_says_the_same() {
        let gpt = |guid: &str| TypeOf::Gpt(guid.into());
        for (kind, signatures, expected) in [
            (gpt("a19d880f-05fc-4d3b-a006-743f0f84911e"), &[][..], Some("linux_raid_type")),
            (gpt("a19d880f-05fc-4d3b-a006-743f0f84911e"), &["linux_raid_member"], None),
            (gpt("a19d880f-05fc-4d3b-a006-743f0f84911e"), &["ext4"], Some("linux_raid_type")),
            (gpt("e6d6d379-f507-44c2-a23c-238f2a3df928"), &["LVM2_member"], None),
            (gpt("e75caf8f-f680-4cee-afa3-b001e56efc2d"), &[], Some("storage_spaces")),
            (gpt("af9b60a0-1431-4f62-bc68-3311714a69ad"), &["ntfs"], Some("ldm")),
            (gpt("0fc63daf-8483-4772-8e79-3d69d8477de4"), &[], None),
            (TypeOf::Mbr(0xfd), &[], Some("linux_raid_type")),
            (TypeOf::Mbr(0x8e), &["LVM2_member"], None),
            (TypeOf::Mbr(0x42), &["ntfs"], Some("ldm")),
            (TypeOf::Mbr(0xfb), &[], Some("a VMFS partition")),
            (TypeOf::Mbr(0x83), &["ext4"], None),
        ] {
            assert_eq!(word_of_type(&kind, signatures), expected, "{kind:?} {signatures:?}");
        }
        assert!(is_code(&gpt("21686148-6449-6e6f-744e-656564454649")));
        assert!(
            !is_code(&gpt("0fc63daf-8483-4772-8e79-3d69d8477de4")) && !is_code(&TypeOf::Mbr(0))
        );
    }

    #[test]
    fn a_recipe_can_spell_every_word_that_it_can_consent_to() {
        let words =
            CLASSES.iter().flat_map(|(class, words)| words.iter().map(move |w| (*class, *w)));
        let words = words.chain(TYPES.iter().map(|kind| (kind.class, kind.word)));
        for (class, word) in words.filter(|(class, _)| matches!(class, Class::Own | Class::Named)) {
            let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
            assert!(word.len() <= 32 && word.chars().all(is_plain), "{class:?} {word}");
        }
        let guids: Vec<&str> = TYPES.iter().flat_map(|kind| kind.guids).copied().collect();
        assert!(guids.iter().all(|guid| guid.len() == 36 && **guid == guid.to_lowercase()));
        assert_eq!(guids.iter().collect::<BTreeSet<_>>().len(), guids.len());
    }
}
