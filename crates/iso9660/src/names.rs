// SPDX-License-Identifier: AGPL-3.0-or-later
//! The names of a file in each directory tree.

use std::collections::BTreeSet;

/// Longest name: Joliet's limit (64 UCS-2 characters).
pub const NAME_CHARS_MAX: usize = 64;

/// Whether a name can be written: printable ASCII without `/` and the characters that Joliet forbids.
pub fn is_valid(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"*/:;?\\".contains(&byte);
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !matches!(name, "." | "..")
}

/// Unique level 1 names (8.3, `A-Z 0-9 _`, version `;1`) for `names`, in the same order.
pub fn level_1<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = BTreeSet::new();
    names
        .into_iter()
        .map(|name| {
            let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
            let (stem, extension) = (squeezed(stem, 8), squeezed(extension, 3));
            let mut candidate = format!("{stem}.{extension}");
            let mut number = 0;
            while !taken.insert(candidate.clone()) {
                number += 1;
                let digits = number.to_string();
                let kept = &stem[..stem.len().min(8 - digits.len())];
                candidate = format!("{kept}{digits}.{extension}");
            }
            format!("{candidate};1")
        })
        .collect()
}

fn squeezed(text: &str, length: usize) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    text.chars().map(letter).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_1_names_are_short_and_unique() {
        let names = [
            "recipe.json",
            "recipe.schema.json",
            "user-data",
            "KS.CFG",
            "unattend.xml",
            "recipe.jsonx",
        ];
        assert_eq!(
            level_1(names),
            [
                "RECIPE.JSO;1",
                "RECIPE_S.JSO;1",
                "USER_DAT.;1",
                "KS.CFG;1",
                "UNATTEND.XML;1",
                "RECIPE1.JSO;1"
            ]
        );
    }

    #[test]
    fn names_with_a_path_are_refused() {
        for name in ["", ".", "..", "a/b", "a\\b", "a b", "a\n", "ä", "a;1", &"x".repeat(65)] {
            assert!(!is_valid(name), "{name:?}");
        }
        assert!(is_valid("recipe.schema.json"));
    }
}
