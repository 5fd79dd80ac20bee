// SPDX-License-Identifier: AGPL-3.0-or-later
//! A parser for the output of wipefs: the signatures, and libblkid's reads from its debug output. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde::de::Error;

/// libblkid reads at most 2 MiB at once, and about 100 KiB in total from most devices.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Something that wipefs recognises.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Signature {
    /// libblkid's name, such as `ext4` or `LVM2_member`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub label: Option<String>,
}

/// Parses the signatures in wipefs' JSON. For a blank device wipefs prints nothing.
pub fn signatures(json: &str) -> serde_json::Result<Vec<Signature>> {
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut output: BTreeMap<String, Vec<Signature>> = serde_json::from_str(json)?;
    let signatures = output.remove("signatures");
    let signatures = signatures.ok_or_else(|| serde_json::Error::missing_field("signatures"))?;
    // One filesystem may have its magic in several places.
    let signatures: BTreeSet<_> = signatures.into_iter().collect();
    Ok(signatures.into_iter().collect())
}

/// One read of libblkid: offset and length.
pub type Read = (u64, u64);

/// Parses libblkid's reads from its debug output.
pub fn reads(debug: &str) -> anyhow::Result<Vec<Read>> {
    let mut reads = Vec::new();
    for line in debug.lines() {
        let Some((_, read)) = line.split_once("\tread: off=") else { continue };
        let numbers = read.split_once(" len=");
        let numbers = numbers
            .and_then(|(at, length)| Some((at.trim().parse().ok()?, length.trim().parse().ok()?)));
        let (at, length): Read = numbers.with_context(|| format!("{line:?} is no read"))?;
        ensure!(length <= READ_BYTES_MAX, "a read of {length} bytes is too large");
        reads.push((at, length));
    }
    let is_done = |chain: &str| {
        debug.lines().any(|line| line.contains("leaving probing loop") && line.contains(chain))
    };
    // libblkid skips devices of at most 1024 bytes.
    let is_tiny = debug.contains("ignore (size <= 1024)");
    ensure!(
        is_tiny || (is_done("[SUBLKS") && is_done("[PARTS")),
        "libblkid does not tell what it read"
    );
    let failed = debug.lines().find(|line| {
        let code = line.split_once("leaving probing loop (failed=").map(|(_, rest)| rest);
        // 1 means that a chain has ended.
        code.is_some_and(|code| code.split(')').next() != Some("1"))
    });
    ensure!(failed.is_none(), "libblkid gave up: {}", failed.unwrap_or_default().trim());
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_wipefs_are_understood() {
        let vfat = r#"{"signatures": [
            {"device":"a1","offset":"0x52","type":"vfat","uuid":"1","label":"ESP"},
            {"device":"a1","offset":"0x0","type":"vfat","uuid":"1","label":"ESP"},
            {"device":"a1","offset":"0x1fe","type":"vfat","uuid":"1","label":"ESP"}]}"#;
        let expected = Signature { kind: "vfat".into(), label: Some("ESP".into()) };
        assert_eq!(signatures(vfat).unwrap(), [expected]);
        assert_eq!(signatures("").unwrap(), []);
        for no_output in
            ["DEVICE OFFSET", "{}", "[[]]", r#"{"other": []}"#, r#"{"signatures": [{}]}"#]
        {
            assert!(signatures(no_output).is_err(), "{no_output}");
        }
        assert_eq!(signatures(r#"{"signatures": []}"#).unwrap(), []);
    }

    #[test]
    fn a_prober_that_did_not_come_to_its_end_has_said_nothing() {
        let begin = "1: libblkid: LOWPROBE: \tread: off=0 len=256\n1: libblkid: LOWPROBE: \tread: off=1024 len=8\n";
        let superblocks =
            "1: libblkid: LOWPROBE: <-- leaving probing loop (failed=1) [SUBLKS idx=70]\n";
        let found = "1: libblkid: LOWPROBE: <-- leaving probing loop (type=ext4) [SUBLKS idx=35]\n";
        let tables = "1: libblkid: LOWPROBE: <-- leaving probing loop (failed=1) [PARTS idx=12]\n";
        let whole = [begin, found, superblocks, tables].concat();
        assert_eq!(reads(&whole).unwrap(), [(0, 256), (1024, 8)]);
        assert_eq!(reads("1: libblkid: LOWPROBE: *** ignore (size <= 1024)\n").unwrap(), []);
        let failed = superblocks.replace("failed=1", "failed=-5");
        for (debug, expected) in [
            (String::new(), "does not tell what it read"),
            ([begin, superblocks].concat(), "does not tell what it read"),
            ([begin, tables].concat(), "does not tell what it read"),
            ([begin, &failed, tables].concat(), "libblkid gave up: "),
            ([begin, superblocks, &tables.replace("failed=1", "failed=-12")].concat(), "gave up"),
            ("\tread: off=x len=8\n".to_owned() + &whole, "is no read"),
            ("\tread: off=8\n".to_owned() + &whole, "is no read"),
            ("\tread: off=8 len=4194305\n".to_owned() + &whole, "too large"),
        ] {
            let error = format!("{:#}", reads(&debug).unwrap_err());
            assert!(error.contains(expected), "{debug}: {error}");
        }
        assert!(reads(&("\tread: off=8 len=4194304\n".to_owned() + &whole)).is_ok());
    }
}
