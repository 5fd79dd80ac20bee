// SPDX-License-Identifier: AGPL-3.0-or-later
//! Writes the binary form of `modules.dep`, which modprobe and udev read (libkmod-index of kmod, version 2.1):
//! a prefix tree. Each node has the letters that all keys below it share, its children by their next
//! letter, and its values.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xb007_f457;
const VERSION: u32 = 0x0002_0001;
/// The upper bits of a node's offset tell what it contains.
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

/// Builds an index with one value for each key. Keys are ASCII without zero bytes, as names of modules are. Others
/// are left out.
pub fn of(entries: &BTreeMap<String, String>) -> Vec<u8> {
    let is_plain = |text: &str| text.bytes().all(|byte| (1..0x80).contains(&byte));
    let entries: Vec<(&[u8], &[u8])> = entries
        .iter()
        .filter(|(key, value)| is_plain(key) && is_plain(value))
        .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
        .collect();
    let mut bytes = [MAGIC, VERSION, 0].map(u32::to_be_bytes).concat();
    // The root has no letters of its own.
    let root = node(&entries, 0, 0, &mut bytes);
    bytes[8..12].copy_from_slice(&root.to_be_bytes());
    bytes
}

/// Writes the node for sorted entries that agree in their first `shared` letters. The letters from `depth` on belong to
/// this node. Returns the node's offset.
fn node(entries: &[(&[u8], &[u8])], depth: usize, shared: usize, bytes: &mut Vec<u8>) -> u32 {
    let start = u32::try_from(bytes.len()).expect("an index is smaller than the lists it is from");
    let mut place = start;
    let prefix = entries.first().and_then(|(key, _)| key.get(depth..shared)).unwrap_or_default();
    if !prefix.is_empty() {
        place |= HAS_PREFIX;
        bytes.extend(prefix);
        bytes.push(0);
    }
    // A key that ends here has one value, and sorts before all longer keys.
    let (values, longer) = match entries {
        [(key, value), longer @ ..] if key.len() == shared => (Some(value), longer),
        longer => (None, longer),
    };
    let children = bytes.len() + 2;
    if let (Some((first, _)), Some((last, _))) = (longer.first(), longer.last()) {
        place |= HAS_CHILDREN;
        let (first, last) = (first[shared], last[shared]);
        bytes.extend([first, last]);
        bytes.resize(children + 4 * (usize::from(last - first) + 1), 0);
    }
    if let Some(value) = values {
        place |= HAS_VALUES;
        // The number of values, and the priority of this one.
        bytes.extend([1, 0].map(u32::to_be_bytes).concat());
        bytes.extend(*value);
        bytes.push(0);
    }
    for entries in longer.chunk_by(|one, other| one.0[shared] == other.0[shared]) {
        let (first, last) = (entries[0].0, entries[entries.len() - 1].0);
        let agree = first.iter().zip(last).take_while(|(one, other)| one == other).count();
        let child = node(entries, shared + 1, agree, bytes);
        let at = children + 4 * usize::from(first[shared] - longer[0].0[shared]);
        bytes[at..at + 4].copy_from_slice(&child.to_be_bytes());
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finds a key in the way that kmod does.
    fn look_up(index: &[u8], key: &str) -> Option<String> {
        let word = |at: usize| u32::from_be_bytes(index[at..at + 4].try_into().unwrap());
        let text = |at: usize| index[at..].split(|byte| *byte == 0).next().unwrap();
        let (mut place, mut key) = (word(8), key.as_bytes());
        loop {
            let mut at = (place & 0x0fff_ffff) as usize;
            if place & HAS_PREFIX != 0 {
                key = key.strip_prefix(text(at))?;
                at += text(at).len() + 1;
            }
            let children = at;
            if place & HAS_CHILDREN != 0 {
                at += 2 + 4 * (usize::from(index[at + 1] - index[at]) + 1);
            }
            let Some((letter, rest)) = key.split_first() else {
                let found = (place & HAS_VALUES != 0).then(|| text(at + 8));
                return found.map(|value| String::from_utf8(value.to_vec()).unwrap());
            };
            if place & HAS_CHILDREN == 0 {
                return None;
            }
            let (from, to) = (index[children], index[children + 1]);
            if !(from..=to).contains(letter) {
                return None;
            }
            place = word(children + 2 + 4 * usize::from(letter - from));
            if place == 0 {
                return None;
            }
            key = rest;
        }
    }

    #[test]
    fn each_key_is_found_and_no_other() {
        let names = ["nvme", "nvme_core", "nvme_fabrics", "ext4", "ext2", "x", "", "virtio_blk"];
        let entries: BTreeMap<String, String> =
            names.iter().map(|name| ((*name).to_owned(), format!("kernel/{name}.ko:"))).collect();
        let index = of(&entries);
        assert_eq!(index[..8], *b"\xb0\x07\xf4\x57\0\x02\0\x01");
        for name in names {
            assert_eq!(look_up(&index, name), Some(format!("kernel/{name}.ko:")), "{name}");
        }
        for name in ["nvm", "nvme_", "nvme_core2", "ext", "ext3", "y", "virtio"] {
            assert_eq!(look_up(&index, name), None, "{name}");
        }
        assert_eq!(look_up(&of(&BTreeMap::new()), "ext4"), None);
    }

    /// The output of depmod of kmod 34 for five modules of Debian 13, without the priority of each value.
    /// Each key has one value.
    const DEPMOD: &str = "\
        b007f457000200012000000c6676a0000052000000000000000000000000000000000000000000000000c000\
        00c5c00000f700000000000000000000000000000000000000000000000000000000c000013c61006974c000\
        0086000000000000000000000000000000000000000000000000000000000000000000000000000000004000\
        00ab6c6f7665720000000001000000006b65726e656c2f6661696c6f7665722e6b6f2e787a3a000000000100\
        0000006b65726e656c2f6661742e6b6f2e787a3a0073646f730000000001000000006b65726e656c2f6d7364\
        6f732e6b6f2e787a3a206b65726e656c2f6661742e6b6f2e787a0065745f6661696c6f766572000000000100\
        0000006b65726e656c2f6e65745f6661696c6f7665722e6b6f2e787a3a206b65726e656c2f6661696c6f7665\
        722e6b6f2e787a006661740000000001000000006b65726e656c2f766661742e6b6f2e787a3a206b65726e65\
        6c2f6661742e6b6f2e787a00";

    #[test]
    fn the_bytes_are_those_of_depmod() {
        let entries = [
            ("fat", "kernel/fat.ko.xz:"),
            ("net_failover", "kernel/net_failover.ko.xz: kernel/failover.ko.xz"),
            ("vfat", "kernel/vfat.ko.xz: kernel/fat.ko.xz"),
            ("msdos", "kernel/msdos.ko.xz: kernel/fat.ko.xz"),
            ("failover", "kernel/failover.ko.xz:"),
        ];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!(hex::encode(of(&entries)), DEPMOD);
    }
}
