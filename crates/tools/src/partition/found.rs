// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is on the disk now: signatures (libblkid's knowledge, through wipefs), table, users.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::command::{self, Argv};
use crate::devices::Disk;
use crate::gpt::Table;

/// A disk as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Who uses the disk, in words.
    pub held_by: Option<String>,
    /// On the disk itself.
    pub on_disk: Vec<Signature>,
    /// On each partition that the kernel knows.
    pub on_partitions: Vec<(u32, Vec<Signature>)>,
    /// A valid GUID partition table.
    pub table: Option<Table>,
}

/// Something that wipefs recognises.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Signature {
    /// libblkid's word, such as `ext4` or `LVM2_member`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub label: Option<String>,
}

impl Found {
    /// The words for everything that is there; empty for a blank disk.
    pub fn names(&self) -> Vec<String> {
        let all = self.on_partitions.iter().flat_map(|(_, signatures)| signatures);
        let names: BTreeSet<_> =
            all.chain(&self.on_disk).map(|signature| signature.kind.clone()).collect();
        // The protective MBR is part of a GPT.
        let has_gpt = names.contains("gpt");
        names.into_iter().filter(|name| !(has_gpt && name == "PMBR")).collect()
    }
}

/// Looks without writing.
pub fn look(disk: &Disk) -> anyhow::Result<Found> {
    let held_by = disk.held_by()?;
    let mut on_partitions = Vec::new();
    for partition in disk.partitions()? {
        let node = disk.partition_node(partition.number)?;
        on_partitions.push((partition.number, signatures(&node)?));
    }
    Ok(Found { held_by, on_disk: signatures(&disk.node)?, on_partitions, table: disk.table()? })
}

fn signatures(node: &Path) -> anyhow::Result<Vec<Signature>> {
    let node = node.to_string_lossy();
    let argv = Argv::new(["wipefs", "--no-act", "--json", &*node]);
    parse(&command::run(&argv)?).with_context(|| format!("understand the output of {argv}"))
}

/// wipefs says nothing at all of a blank device.
fn parse(json: &str) -> serde_json::Result<Vec<Signature>> {
    #[derive(Deserialize)]
    struct Output {
        signatures: Vec<Signature>,
    }
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    // One filesystem may have magic in several places.
    let signatures: BTreeSet<_> =
        serde_json::from_str::<Output>(json)?.signatures.into_iter().collect();
    Ok(signatures.into_iter().collect())
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
        assert_eq!(parse(vfat).unwrap(), [expected]);
        assert_eq!(parse("").unwrap(), []);
        assert!(parse("DEVICE OFFSET").is_err());
    }
}
