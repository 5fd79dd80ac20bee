// SPDX-License-Identifier: AGPL-3.0-or-later
//! The positions of the files in any ISO 9660 image, without reading the files: for example in a bootable image of
//! several gigabytes. The directories of the primary tree are walked. Names are Rock Ridge names where the image has
//! them.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use crate::bytes::SECTOR;

/// Far more than any bootable image has. Limits the work for a hostile image.
const DIRECTORIES_MAX: usize = 4096;
const FILES_MAX: usize = 65_536;
const DIRECTORY_BYTES_MAX: u32 = 4 << 20;
const DEPTH_MAX: usize = 32;
const DESCRIPTORS_MAX: u64 = 64;

/// The files and boot images of an image, with their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    pub volume_id: String,
    /// Ordered by position in the image. A file above 4 GiB has several extents.
    pub files: Vec<Extent>,
    /// The images that firmware can boot ("El Torito" 1.0; platform IDs of UEFI 2.10, 13.3.2.1).
    pub boot_images: Vec<BootImage>,
}

/// A contiguous part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Path from the root, such as `boot/vmlinuz`.
    pub path: String,
    /// In bytes from the start of the image.
    pub start: u64,
    pub length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootImage {
    /// 0 is a BIOS on x86, 0xEF is UEFI.
    pub platform: u8,
    /// In bytes from the start of the image. Only the file at this position gives a reliable length.
    pub start: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the image cannot be read")]
    Read(#[from] io::Error),
    #[error("this is not an ISO 9660 image")]
    NotAnImage,
    #[error("the image is refused: {0}")]
    Refused(&'static str),
}

impl Index {
    /// The extent of a file, if the file has exactly one.
    pub fn file(&self, path: &str) -> Option<&Extent> {
        let mut found = self.files.iter().filter(|extent| extent.path == path);
        found.next().filter(|_| found.next().is_none())
    }
}

/// Reads descriptors, directories and the boot catalog of an image.
pub fn index(image: &mut (impl Read + Seek)) -> Result<Index, IndexError> {
    let (primary, catalog) = descriptors(image)?;
    let mut index = Index {
        volume_id: String::from_utf8_lossy(&primary[40..72]).trim_end().to_owned(),
        ..Index::default()
    };
    let mut walk = vec![(String::new(), Place::of(&primary[156..190]), 0)];
    let mut seen = BTreeSet::new();
    while let Some((path, place, depth)) = walk.pop() {
        if !seen.insert(place.block) {
            continue;
        }
        if seen.len() > DIRECTORIES_MAX || depth > DEPTH_MAX {
            return Err(IndexError::Refused("too many or too deep directories"));
        }
        for entry in entries(&directory(image, place)?) {
            let path = format!("{path}{}", entry.name);
            if entry.is_directory {
                walk.push((format!("{path}/"), entry.place, depth + 1));
            } else if index.files.len() == FILES_MAX {
                return Err(IndexError::Refused("too many files"));
            } else {
                let Place { block, length } = entry.place;
                index.files.push(Extent { path, start: bytes_to(block), length: length.into() });
            }
        }
    }
    index.files.sort_by_key(|extent| extent.start);
    if let Some(block) = catalog {
        index.boot_images = boot_images(&sector(image, block.into())?);
    }
    Ok(index)
}

/// The first block and the length in bytes from a directory record.
#[derive(Debug, Clone, Copy)]
struct Place {
    block: u32,
    length: u32,
}

impl Place {
    fn of(record: &[u8]) -> Place {
        Place { block: little(record, 2), length: little(record, 10) }
    }
}

struct Entry {
    name: String,
    is_directory: bool,
    place: Place,
}

fn bytes_to(block: u32) -> u64 {
    u64::from(block) * SECTOR as u64
}

fn little(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn sector(image: &mut (impl Read + Seek), number: u64) -> io::Result<[u8; SECTOR]> {
    let mut bytes = [0; SECTOR];
    image.seek(SeekFrom::Start(number * SECTOR as u64))?;
    image.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The primary volume descriptor, and the block of the boot catalog.
fn descriptors(image: &mut (impl Read + Seek)) -> Result<([u8; SECTOR], Option<u32>), IndexError> {
    let (mut primary, mut catalog) = (None, None);
    for number in 16..16 + DESCRIPTORS_MAX {
        let bytes = match sector(image, number) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        };
        if &bytes[1..6] != b"CD001" {
            break;
        }
        match bytes[0] {
            0 if bytes[7..].starts_with(b"EL TORITO SPECIFICATION") => {
                catalog = Some(little(&bytes, 0x47));
            }
            1 => primary = primary.or(Some(bytes)),
            255 => break,
            _ => {}
        }
    }
    Ok((primary.ok_or(IndexError::NotAnImage)?, catalog))
}

fn directory(image: &mut (impl Read + Seek), place: Place) -> Result<Vec<u8>, IndexError> {
    if place.length > DIRECTORY_BYTES_MAX {
        return Err(IndexError::Refused("a directory of more than 4 MiB"));
    }
    let mut bytes = vec![0; place.length as usize];
    image.seek(SeekFrom::Start(bytes_to(place.block)))?;
    image.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The records of a directory, except those for itself and its parent (ECMA-119, 9.1).
fn entries(directory: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for mut rest in directory.chunks(SECTOR) {
        while let Some(&size) = rest.first() {
            let size = usize::from(size);
            if size < 34 || size > rest.len() {
                break;
            }
            let (record, next) = rest.split_at(size);
            rest = next;
            let id_end = 33 + usize::from(record[32]);
            let Some(id) = record.get(33..id_end) else { break };
            if matches!(id, [0 | 1]) {
                continue;
            }
            // The system use area begins at an even offset.
            let system_use = record.get(id_end + (id_end & 1)..).unwrap_or_default();
            entries.push(Entry {
                name: rock_ridge_name(system_use).unwrap_or_else(|| plain_name(id)),
                is_directory: record[25] & 2 != 0,
                place: Place::of(record),
            });
        }
    }
    entries
}

/// An identifier without its version (ECMA-119, 7.5).
fn plain_name(id: &[u8]) -> String {
    let text = String::from_utf8_lossy(id);
    let name = text.split_once(';').map_or(&*text, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name).to_owned()
}

/// The name from the `NM` fields of a record (IEEE P1282, 4.1.4). A name that continues in a continuation area is not
/// followed.
fn rock_ridge_name(mut fields: &[u8]) -> Option<String> {
    const CONTINUES: u8 = 1;
    let mut name = Vec::new();
    while let [a, b, size, ..] = *fields {
        let size = usize::from(size);
        if size < 4 || size > fields.len() {
            break;
        }
        let (field, next) = fields.split_at(size);
        fields = next;
        if [a, b] == *b"NM" && size >= 5 {
            name.extend_from_slice(&field[5..]);
            if field[4] & CONTINUES == 0 {
                return (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned());
            }
        }
    }
    None
}

/// The bootable entries of a boot catalog, which consists of a validation entry, the default entry and sections.
fn boot_images(catalog: &[u8]) -> Vec<BootImage> {
    const BOOTABLE: u8 = 0x88;
    let mut images = Vec::new();
    let mut platform = catalog[1];
    if catalog[0] != 1 {
        return images;
    }
    for entry in catalog[32..].chunks_exact(32) {
        match entry[0] {
            BOOTABLE => {
                images.push(BootImage { platform, start: bytes_to(little(entry, 8)) });
            }
            0x90 | 0x91 => platform = entry[1],
            _ => {}
        }
    }
    images
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads what other programs make")]
mod tests {
    use std::io::Cursor;
    use std::process::Command;

    use super::*;
    use crate::{File, Volume, to_vec};

    #[test]
    fn files_of_our_own_images_are_found_by_their_whole_names() {
        let files = [
            File { name: "recipe.json".into(), bytes: b"{}".to_vec() },
            File { name: "a-rather-long-name.of-a-file".into(), bytes: vec![7; 5000] },
        ];
        let volume = Volume { id: "TASK_1".into(), epoch_secs: 0 };
        let image = to_vec(&files, &volume).unwrap();
        let index = index(&mut Cursor::new(&image)).unwrap();
        assert_eq!(index.volume_id, "TASK_1");
        assert_eq!(index.files.len(), 2);
        for file in &files {
            let extent = index.file(&file.name).unwrap();
            let start = usize::try_from(extent.start).unwrap();
            assert_eq!(extent.length, file.bytes.len() as u64);
            assert_eq!(image[start..start + file.bytes.len()], file.bytes);
        }
        assert_eq!(index.boot_images, []);
    }

    /// An image like maintenance.iso.
    #[test]
    fn a_bootable_image_by_xorriso_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("boot/grub")).unwrap();
        for (path, bytes) in [
            ("boot/vmlinuz", vec![1; 100_000]),
            ("boot/grub/bios.img", vec![2; 4096]),
            ("boot/grub/efi.img", vec![3; 70_000]),
        ] {
            std::fs::write(tree.join(path), bytes).unwrap();
        }
        let image = dir.path().join("image.iso");
        let made = Command::new("xorriso")
            .args(["-as", "mkisofs", "-quiet", "-rational-rock", "-volid", "MAINT", "-o"])
            .arg(&image)
            .args(["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4"])
            .args(["-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot"])
            .arg(&tree)
            .status();
        assert!(made.unwrap().success());
        let index = index(&mut std::fs::File::open(&image).unwrap()).unwrap();
        assert_eq!(index.volume_id, "MAINT");
        let place = |path: &str| index.file(path).unwrap();
        assert_eq!(place("boot/vmlinuz").length, 100_000);
        assert_eq!(
            index.boot_images,
            [
                BootImage { platform: 0, start: place("boot/grub/bios.img").start },
                BootImage { platform: 0xef, start: place("boot/grub/efi.img").start },
            ]
        );
        let bytes = std::fs::read(&image).unwrap();
        let start = usize::try_from(place("boot/grub/efi.img").start).unwrap();
        assert_eq!(bytes[start..start + 70_000], [3; 70_000]);
    }

    #[test]
    fn a_directory_that_contains_itself_ends() {
        let volume = Volume { id: "X".into(), epoch_secs: 0 };
        let file = File { name: "f".into(), bytes: vec![1] };
        let mut image = to_vec(&[file], &volume).unwrap();
        let root = little(&image[16 * SECTOR + 156..], 2) as usize * SECTOR;
        let second = root + usize::from(image[root]);
        let third = second + usize::from(image[second]);
        // Turns the file into a directory at the position of the root.
        image[third + 25] |= 2;
        let own = image[root + 2..root + 18].to_vec();
        image[third + 2..third + 18].copy_from_slice(&own);
        assert_eq!(index(&mut Cursor::new(&image)).unwrap().files, []);
    }

    proptest::proptest! {
        #[test]
        fn damage_is_an_error_and_never_a_panic(
            places in proptest::collection::vec((0usize..60_000, proptest::num::u8::ANY), 0..40),
        ) {
            let volume = Volume { id: "X".into(), epoch_secs: 0 };
            let file = File { name: "f".into(), bytes: vec![1; 100] };
            let mut image = to_vec(&[file], &volume).unwrap();
            for (at, byte) in places {
                let at = at % image.len();
                image[at] = byte;
            }
            let _either = index(&mut Cursor::new(&image));
        }
    }
}
