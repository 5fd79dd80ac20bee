// SPDX-License-Identifier: AGPL-3.0-or-later
//! Files that the user names: recipes, tokens, passwords, certificates. If opening one fails, the error says how to
//! fix it. Text is accepted as editors and shells of several systems write it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};

/// The name that stands for standard input.
const STDIN: &str = "-";
/// Far above the longest token that the controller accepts. It prevents reading a whole image by mistake.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// All CA certificates of a system together are a quarter of a megabyte.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Opens a file that the user named.
pub fn open(path: &Path) -> anyhow::Result<File> {
    let place = path.display();
    let file = File::open(path).map_err(|error| match (error.kind(), std::env::current_dir()) {
        (ErrorKind::NotFound, Ok(dir)) if path.is_relative() => {
            anyhow!("{place} does not exist in {}; check the path", dir.display())
        }
        (ErrorKind::NotFound, _) => anyhow!("{place} does not exist; check the path"),
        (ErrorKind::PermissionDenied, _) => anyhow!(
            "{place} may not be read by this user; the files of a controller's data directory are its own user's: \
             copy the one that you need, or run as that user"
        ),
        _ => anyhow!(error).context(format!("open {place}")),
    })?;
    let metadata = file.metadata().with_context(|| format!("look at {place}"))?;
    ensure!(!metadata.is_dir(), "{place} is a directory; name a file in it");
    Ok(file)
}

/// Reads the certificates or keys in a file, which must be PEM.
pub fn read_pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    let place = path.display();
    let mut bytes = Vec::new();
    open(path)?
        .take(PEM_BYTES_MAX)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {place}"))?;
    ensure!(!bytes.trim_ascii().is_empty(), "{place} is empty");
    // The tag and the length of a SEQUENCE that has more than 255 bytes (X.690, section 8.1.3).
    ensure!(
        !bytes.starts_with(&[0x30, 0x82]),
        "{place} is DER, not PEM; convert it: openssl x509 -inform der -in {place} -out FILE"
    );
    Ok(bytes)
}

/// Reads the text of a file, or of standard input for `-`, without a byte order mark.
pub fn read(path: &Path, bytes_max: usize) -> anyhow::Result<String> {
    let place = path.display();
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    if path == Path::new(STDIN) {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .context("read standard input")?;
    } else {
        let file = open(path)?;
        file.take(limit).read_to_end(&mut bytes).with_context(|| format!("read {place}"))?;
    }
    ensure!(bytes.len() <= bytes_max, "{place} is too large: at most {bytes_max} bytes are read");
    decode(bytes).with_context(|| format!("read {place}"))
}

/// Reads one line, without white space around it: a token, a password.
pub fn read_secret(path: &Path, what: &str) -> anyhow::Result<String> {
    let place = path.display();
    let text = read(path, TOKEN_BYTES_MAX).with_context(|| format!("read the {what}"))?;
    let line = text.trim_end_matches(['\r', '\n']);
    ensure!(!line.is_empty(), "{place} is empty; write the {what} into it");
    ensure!(
        !line.contains(['\r', '\n']),
        "{place} has several lines; the {what} must be the only one"
    );
    Ok(line.to_owned())
}

fn decode(mut bytes: Vec<u8>) -> anyhow::Result<String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        bail!(
            "the text is UTF-16, as Windows PowerShell's `>` and Notepad's \"Unicode\" write it; \
             save it as UTF-8"
        );
    }
    if bytes.starts_with(recipe::BYTE_ORDER_MARK) {
        bytes.drain(..recipe::BYTE_ORDER_MARK.len());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            bail!("line {line} is not UTF-8 text; save the file as UTF-8")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whatever_editor_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for (bytes, expected) in [
            (&b"shp_1"[..], Ok("shp_1")),
            (b"shp_1\n", Ok("shp_1")),
            (b"\xef\xbb\xbfshp_1\r\n", Ok("shp_1")),
            (b"\xef\xbb\xbf\r\n", Err("is empty; write the token into it")),
            (b"", Err("is empty")),
            (b"one\ntwo\n", Err("has several lines")),
            (b"\xff\xfes\0h\0p\0", Err("UTF-16")),
            (b"\xfe\xff\0s\0h\0p", Err("save it as UTF-8")),
            (b"a\nb\xe4\n", Err("line 2 is not UTF-8 text; save the file as UTF-8")),
        ] {
            std::fs::write(&path, bytes).unwrap();
            match (read_secret(&path, "token").map_err(|error| format!("{error:#}")), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.contains(expected), "{bytes:?}: {error}");
                    assert!(error.contains("token"), "{bytes:?}: {error}");
                }
                (read, expected) => panic!("{bytes:?}: {read:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), "12345");
        let error = format!("{:#}", read(&path, 4).unwrap_err());
        assert!(error.ends_with("is too large: at most 4 bytes are read"), "{error}");
    }
}
