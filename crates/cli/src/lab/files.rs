// SPDX-License-Identifier: AGPL-3.0-or-later
//! The files that a lab needs besides our programs: the maintenance OS, an OS image, a recipe and an SSH key. They are
//! searched for in several places, not only in the current directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

pub const MAINTENANCE_ISO: &str = "maintenance.iso";
pub const ROOTFS: &str = "rootfs.tar.zst";
/// The recipe of a lab for which none was given.
const EXAMPLE: &str = include_str!("../../../../examples/linux/minimal.yaml");
const RECIPE: &str = "recipe.yaml";
const SSH_KEY: &str = "ssh-key";

/// The directories to search for images, for a program in `program_dir`, started in `current_dir`.
fn places(program_dir: &Path, current_dir: &Path, name: &str) -> Vec<PathBuf> {
    [
        // Installed by hand, in one directory.
        program_dir.join(name),
        // In Cargo's target directory: target/release/shoal and target/images.
        program_dir.join("../images").join(name),
        // Installed by a package: bin/shoal and share/shoal.
        program_dir.join("../share/shoal").join(name),
        current_dir.join("target/images").join(name),
    ]
    .into()
}

/// Returns the absolute path of the image of this name; if it is not found, the error lists the searched places.
pub fn image(name: &str) -> anyhow::Result<Result<PathBuf, Vec<PathBuf>>> {
    let program = std::env::current_exe().context("find the own program")?;
    let program_dir = program.parent().unwrap_or(Path::new("/"));
    let current_dir = std::env::current_dir().context("find the current directory")?;
    let places = places(program_dir, &current_dir, name);
    Ok(match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(whole(place)?),
        None => Err(places),
    })
}

/// Joins places for a sentence.
pub fn listed(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.join(", ")
}

/// Returns the absolute path of a file, which must exist.
pub fn whole(file: &Path) -> anyhow::Result<PathBuf> {
    let path = fs::canonicalize(file).with_context(|| format!("find {}", file.display()))?;
    ensure!(path.is_file(), "{} is not a file", path.display());
    Ok(path)
}

/// Returns a key to log in to the installed machine with, made once; `None` if there is no `ssh-keygen`.
pub fn ssh_key(dir: &Path) -> anyhow::Result<Option<PathBuf>> {
    let key = dir.join(SSH_KEY);
    if key.exists() {
        return Ok(Some(key));
    }
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "shoal-lab", "-f"]).arg(&key);
    match keygen.status() {
        Ok(status) => ensure!(status.success(), "ssh-keygen ended with {status}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("run ssh-keygen"),
    }
    Ok(Some(key))
}

/// Returns the lab's recipe: the example, with the lab's key. It is written only once, so that the user can edit it.
pub fn recipe(dir: &Path, ssh_key: Option<&Path>) -> anyhow::Result<PathBuf> {
    let file = dir.join(RECIPE);
    if file.exists() {
        return Ok(file);
    }
    let mut text = EXAMPLE.to_owned();
    if let Some(key) = ssh_key {
        let public = key.with_extension("pub");
        let public =
            fs::read_to_string(&public).with_context(|| format!("read {}", public.display()))?;
        text = with_key(&text, public.trim());
    }
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// Replaces the example's SSH key in the recipe.
fn with_key(recipe: &str, public_key: &str) -> String {
    let line = |line: &str| match line.split_once("- ssh-") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}- {public_key}\n"),
        _ => format!("{line}\n"),
    };
    recipe.lines().map(line).collect()
}

/// Quotes a word for a shell (POSIX.1-2017, XCU 2.2).
pub fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+=,-".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_the_place_of_the_program() {
        let dir = tempfile::tempdir().unwrap();
        for (program, image) in [
            ("target/release", "target/images"),
            ("usr/bin", "usr/share/shoal"),
            ("opt/shoal", "opt/shoal"),
            ("elsewhere", "here/target/images"),
        ] {
            let (program, image) = (dir.path().join(program), dir.path().join(image));
            fs::create_dir_all(&program).unwrap();
            fs::create_dir_all(&image).unwrap();
            fs::write(image.join(ROOTFS), "").unwrap();
            let places = places(&program, &dir.path().join("here"), ROOTFS);
            let found = places.iter().find(|place| place.is_file()).unwrap();
            assert_eq!(fs::canonicalize(found).unwrap(), image.join(ROOTFS));
            fs::remove_file(image.join(ROOTFS)).unwrap();
        }
    }

    #[test]
    fn the_labs_recipe_is_the_example_with_the_labs_key_and_stays_as_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join(SSH_KEY);
        fs::write(key.with_extension("pub"), "ssh-ed25519 AAAA lab\n").unwrap();
        let file = recipe(dir.path(), Some(&key)).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let others = |text: &str| {
            let lines = text.lines().filter(|line| !line.contains("ssh-ed25519"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(text.contains("        - ssh-ed25519 AAAA lab\n"), "{text}");
        assert_eq!(others(&text), others(EXAMPLE));
        assert_eq!(text.matches("ssh-ed25519").count(), 1);
        let recipe_read = crate::recipes::read_checked(&file).unwrap();
        assert_eq!(recipe_read.task_target.as_str(), "install-linux.target");
        fs::write(&file, "mine").unwrap();
        recipe(dir.path(), None).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        for word in
            ["/a/b-c_d.e:f@g", "", "two words", "it's", "$(x) `y` \"z\" \\", "~", "*", "é", "a\nb"]
        {
            let script = format!("printf %s {}", quoted(word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
