// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks whether firmware with Secure Boot would start the installed boot chain (UEFI 2.10, 32.3). A program
//! without any signature is rejected. Which key made a signature, and whether this firmware trusts it, is not
//! checked.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::efi_variables;
use super::esp::{Loader, SHIM, Source};
use super::kernels::Kernel;
use crate::beneath::Root;

/// The headers of a PE image, including its section table, are smaller.
const HEADERS_BYTES: u64 = 64 << 10;
/// The offset of the header's offset, and the signature of the header (PE format, "MS-DOS stub", "signature").
const HEADER_AT: usize = 0x3c;
const HEADER_MAGIC: &[u8] = b"PE\0\0";
/// Offsets of the optional header within the header, and of the certificate table within the optional header (PE
/// format, "optional header data directories"), for images of 32 and of 64 bits.
const OPTIONAL_AT: usize = 24;
const CERTIFICATES: [(u16, usize); 2] = [(0x10b, 96 + 4 * 8), (0x20b, 112 + 4 * 8)];

/// The state of Secure Boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    On,
    Off,
    /// Why it could not be read.
    Unknown(String),
}

/// Reads the state from the firmware's variables. `variables` is `None` if they are not available.
pub fn state(variables: Option<&Path>) -> State {
    let Some(dir) = variables else {
        return State::Unknown("the firmware shows no variables".into());
    };
    match efi_variables::read(dir, "SecureBoot") {
        Ok(Some(value)) if value == [1] => State::On,
        // Firmware without Secure Boot has no such variable.
        Ok(Some(_) | None) => State::Off,
        Err(error) => State::Unknown(format!("read the variable SecureBoot: {error}")),
    }
}

/// Fails if Secure Boot is on and a program of the boot chain is not signed. If the state is unknown, returns a line
/// about that.
pub fn check(
    root: &Root,
    loader: &Loader,
    kernels: &[Kernel],
    state: &State,
) -> anyhow::Result<Option<String>> {
    if *state == State::Off {
        return Ok(None);
    }
    let Some(unsigned) = first_unsigned(root, loader, kernels)? else { return Ok(None) };
    match state {
        State::Unknown(why) => Ok(Some(format!(
            "{unsigned} is not signed: with Secure Boot this system would not boot, and whether it is on is \
             not known ({why})"
        ))),
        _ => bail!(
            "Secure Boot is on, and {unsigned} is not signed: the firmware would not boot this system; push \
             an image with a signed shim, GRUB and kernel, or switch Secure Boot off in the firmware's \
             settings"
        ),
    }
}

fn first_unsigned(
    root: &Root,
    loader: &Loader,
    kernels: &[Kernel],
) -> anyhow::Result<Option<String>> {
    let Source::Image(files) = &loader.source else {
        return Ok(Some("the boot loader, which was built because the image has none,".into()));
    };
    let mut chain: Vec<PathBuf> = Vec::new();
    for name in [loader.file, "grubx64.efi"] {
        chain.extend(files.get(name).cloned());
    }
    // Without shim, GRUB itself does not verify the kernel's signature.
    if loader.file == SHIM {
        chain.extend(kernels.first().map(|kernel| Path::new("boot").join(&kernel.file)));
    }
    for path in chain {
        let mut bytes = Vec::new();
        root.file(&path)
            .and_then(|file| file.take(HEADERS_BYTES).read_to_end(&mut bytes))
            .with_context(|| format!("read /{}", path.display()))?;
        if !is_signed(&bytes) {
            return Ok(Some(format!("/{} of the image", path.display())));
        }
    }
    Ok(None)
}

/// Whether a PE image has a certificate table.
fn is_signed(bytes: &[u8]) -> bool {
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    };
    let size = || -> Option<u32> {
        let header = usize::try_from(number(HEADER_AT)?).ok()?;
        if bytes.get(header..header.checked_add(4)?)? != HEADER_MAGIC {
            return None;
        }
        let optional = header.checked_add(OPTIONAL_AT)?;
        let magic = u16::try_from(number(optional)? & 0xffff).ok()?;
        let (_, table) = CERTIFICATES.iter().find(|(kind, _)| *kind == magic)?;
        let (place, size) = (number(optional + table)?, number(optional + table + 4)?);
        (place > 0).then_some(size)
    };
    size().is_some_and(|size| size > 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    /// The headers of a 64-bit PE image.
    fn program(is_signed: bool) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x98..0x9a].copy_from_slice(&0x20b_u16.to_le_bytes());
        if is_signed {
            bytes[0x98 + 144..0x98 + 152].copy_from_slice(&[0, 2, 0, 0, 8, 6, 0, 0]);
        }
        bytes
    }

    #[test]
    fn an_unsigned_link_of_the_chain_fails_where_secure_boot_is_on() {
        let image = |names: &[&str]| {
            Source::Image(
                [(SHIM, "efi/shim"), ("grubx64.efi", "efi/grub")]
                    .into_iter()
                    .filter(|(name, _)| names.contains(name))
                    .map(|(name, path)| (name, PathBuf::from(path)))
                    .collect::<BTreeMap<_, _>>(),
            )
        };
        let with_shim = (SHIM, image(&[SHIM, "grubx64.efi"]));
        let without_shim = ("grubx64.efi", image(&["grubx64.efi"]));
        let built = ("grubx64.efi", Source::Built);
        // Loader; which of shim, GRUB and kernel are signed; the file that the error names.
        for ((file, source), signed, unsigned) in [
            (with_shim.clone(), "shim grub kernel", None),
            (with_shim.clone(), "grub kernel", Some("/efi/shim of the image")),
            (with_shim.clone(), "shim kernel", Some("/efi/grub of the image")),
            (with_shim, "shim grub", Some("/boot/vmlinuz-6.1 of the image")),
            (without_shim.clone(), "grub", None),
            (without_shim, "kernel", Some("/efi/grub of the image")),
            (built, "", Some("the boot loader, which was built")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for (name, path) in
                [("shim", "efi/shim"), ("grub", "efi/grub"), ("kernel", "boot/vmlinuz-6.1")]
            {
                let path = dir.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, program(signed.contains(name))).unwrap();
            }
            let root = Root::open(dir.path()).unwrap();
            let kernel =
                Kernel { version: "6.1".into(), file: "vmlinuz-6.1".into(), initramfs: None };
            let loader = Loader { vendor: "debian".into(), file, source };
            let check = |state: State| check(&root, &loader, std::slice::from_ref(&kernel), &state);
            assert_eq!(check(State::Off).unwrap(), None);
            match (check(State::On), unsigned) {
                (Ok(None), None) => {}
                (Err(error), Some(unsigned)) => {
                    let error = format!("{error:#}");
                    assert!(
                        error.starts_with(&format!("Secure Boot is on, and {unsigned}")),
                        "{error}"
                    );
                }
                (outcome, _) => panic!("{signed}: {outcome:?}"),
            }
            let line = check(State::Unknown("EIO".into())).unwrap();
            assert_eq!(line.is_some_and(|line| line.contains("(EIO)")), unsigned.is_some());
        }
    }

    #[test]
    fn secure_boot_is_off_only_where_the_firmware_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("SecureBoot-{}", efi_variables::GLOBAL));
        assert_eq!(state(Some(dir.path())), State::Off);
        fs::write(&path, [6, 0, 0, 0, 1]).unwrap();
        assert_eq!(state(Some(dir.path())), State::On);
        fs::write(&path, [6, 0, 0, 0, 0]).unwrap();
        assert_eq!(state(Some(dir.path())), State::Off);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(state(Some(dir.path())), State::Unknown(_)));
        assert!(matches!(state(None), State::Unknown(_)));
    }

    #[test]
    fn no_bytes_can_make_the_reader_fail() {
        let whole = program(true);
        assert!(is_signed(&whole));
        for length in 0..whole.len() {
            is_signed(&whole[..length]);
        }
        assert!(!is_signed(&[0xff; 512]));
        let mut far = whole;
        far[0x3c..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(!is_signed(&far));
    }
}
