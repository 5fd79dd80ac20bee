// SPDX-License-Identifier: AGPL-3.0-or-later
//! The parts of the recipe that are not on the task medium. They are fetched once this boot has its permit, and
//! written where the steps look for them. Until then `/run/provision` has the medium's stand-ins: a hello does not
//! prove the machine's identity, so no secret is sent in response to it.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use recipe::task_medium::Attempt;
use recipe::{File, Recipe, run_dir};

use crate::controller::Controller;
use crate::private_file;

/// Fetches the whole recipe and writes it to `/run/provision`. Harmless when repeated.
pub fn put_in_place(controller: &Controller, attempt: &Attempt) -> anyhow::Result<()> {
    if !attempt.withholds_secrets {
        return Ok(());
    }
    let whole = match controller.fetch("recipe", recipe::BODY_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(reason) => bail!("the controller does not give the recipe's secrets: {reason}"),
    };
    put_into(Path::new(run_dir::DIR), &whole)
}

/// Replaces each file as a whole, within the same directory: running steps have that directory open.
fn put_into(dir: &Path, whole: &[u8]) -> anyhow::Result<()> {
    let (present, identity) = run_dir::read(&files(dir)?)?;
    let whole = joined(&present, whole)?;
    for file in run_dir::files(&whole, &identity) {
        private_file::write(&dir.join(&file.name), &file.bytes)?;
    }
    Ok(())
}

fn files(dir: &Path) -> anyhow::Result<Vec<File>> {
    let read = |name: &str| {
        let path = dir.join(name);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        anyhow::Ok(File { name: name.into(), bytes })
    };
    ["recipe.json", "identity.json"].into_iter().map(read).collect()
}

/// Checks that the recipe from the controller equals the one here except for the stand-ins, and returns it.
fn joined(present: &Recipe, bytes: &[u8]) -> anyhow::Result<Recipe> {
    let whole = match Recipe::parse(bytes) {
        Ok(whole) => whole,
        Err(problems) => {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            bail!("the controller's recipe is not valid: {}", list.join("; "))
        }
    };
    ensure!(
        whole.without_secrets() == present.without_secrets(),
        "the controller has another recipe for this attempt than the task medium; is the medium an old one?"
    );
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(disk: &str, user_data: &str) -> Recipe {
        let json = serde_json::json!({
            "task_target": "install-linux.target",
            "target_disk": {"serial": disk},
            "oci_url": "controller/os-images/debian:13",
            "partition_layout": [
                {"size": "512M", "type_guid": "ef00", "format": "vfat"},
                {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "cidata"},
                {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"}
            ],
            "user_data": user_data,
        });
        Recipe::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_was_withheld_is_put_back_and_nothing_else_may_differ() {
        let whole = recipe("D1", "#cloud-config\npassword: secret\n");
        let on_medium = whole.without_secrets();
        assert_eq!(joined(&on_medium, &whole.to_json()).unwrap(), whole);
        assert_eq!(joined(&whole, &whole.to_json()).unwrap(), whole, "once more");
        let other_disk = recipe("D2", "#cloud-config\npassword: secret\n");
        let error = joined(&on_medium, &other_disk.to_json()).unwrap_err().to_string();
        assert!(error.contains("another recipe"), "{error}");
        let error = joined(&on_medium, b"{}").unwrap_err().to_string();
        assert!(error.contains("not valid"), "{error}");
    }

    #[test]
    fn the_steps_find_stand_ins_before_the_permit_and_the_secrets_after_it() {
        let whole = recipe("D1", "#cloud-config\npassword: secret\n");
        let identity = run_dir::Identity {
            job_id: "j".into(),
            attempt_id: "a".into(),
            server_serial: "SN1".into(),
            boot_id: "b".into(),
            disk: None,
        };
        let dir = tempfile::tempdir().unwrap();
        for file in run_dir::files(&whole.without_secrets(), &identity) {
            private_file::write(&dir.path().join(&file.name), &file.bytes).unwrap();
        }
        let user_data = || fs::read_to_string(dir.path().join("user-data")).unwrap();
        assert!(user_data().starts_with("withheld: "), "{}", user_data());
        for _ in 0..2 {
            put_into(dir.path(), &whole.to_json()).unwrap();
            assert_eq!(user_data(), "#cloud-config\npassword: secret\n");
            let (read, same) = run_dir::read(&files(dir.path()).unwrap()).unwrap();
            assert_eq!((read, &same), (whole.clone(), &identity));
        }
        let other = recipe("D2", "#cloud-config\n");
        put_into(dir.path(), &other.to_json()).unwrap_err();
        assert_eq!(user_data(), "#cloud-config\npassword: secret\n");
    }
}
