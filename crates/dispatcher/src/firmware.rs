// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks the mode in which the firmware booted this machine. The tools write a GPT and a 64-bit UEFI boot
//! loader: on a machine in another mode the installed system could not boot. The check is here, before any
//! tool runs, because `/sys/firmware` is not visible in a container.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use recipe::{Recipe, Workflow};

/// Fails if the recipe installs a system that this machine could not boot. `efi` is `/sys/firmware/efi`, which exists
/// only if the machine was booted by UEFI (Documentation/ABI/testing/sysfs-firmware-efi of Linux).
pub fn check(recipe: &Recipe, efi: &Path) -> anyhow::Result<()> {
    match recipe.workflow {
        Workflow::Linux(_) | Workflow::Windows(_) => {}
        // These do not install our boot loader.
        Workflow::Esxi(_) | Workflow::Firmware(_) | Workflow::Custom => return Ok(()),
    }
    let target = recipe.task_target.as_str();
    let size = efi.join("fw_platform_size");
    match fs::read_to_string(&size) {
        Ok(bits) if bits.trim() == "64" => Ok(()),
        Ok(bits) => bail!(
            "this machine's UEFI firmware has {} bits, but {target} installs a 64-bit boot loader; \
             nothing was written to a disk",
            bits.trim()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !efi.exists() => bail!(
            "this machine was booted in legacy BIOS mode, but {target} installs a system that boots by \
             UEFI; nothing was written to a disk; set the boot mode in the firmware's settings to UEFI \
             (not Legacy, not CSM) and create the job again"
        ),
        Err(error) => Err(error).with_context(|| {
            format!("read {}, which tells the firmware's boot mode", size.display())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(target: &str) -> Recipe {
        let json = serde_json::json!({
            "task_target": target,
            "target_disk": {"serial": "D1"},
            "oci_url": "controller/os-images/debian:13",
            "partition_layout": [
                {"size": "512M", "type_guid": "ef00", "format": "vfat"},
                {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"}
            ],
        });
        let custom = serde_json::json!({"task_target": target});
        let json = if target == "install-linux.target" { json } else { custom };
        Recipe::parse(json.to_string().as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[test]
    fn linux_is_installed_on_a_machine_in_64_bit_uefi_mode_only() {
        // Target, content of fw_platform_size (`None`: no /sys/firmware/efi), and the beginning of the error.
        for (target, bits, expected) in [
            ("install-linux.target", Some("64\n"), ""),
            ("install-linux.target", Some("32\n"), "this machine's UEFI firmware has 32 bits"),
            ("install-linux.target", Some("\n"), "this machine's UEFI firmware has  bits"),
            ("install-linux.target", None, "this machine was booted in legacy BIOS mode"),
            ("burn-in.target", Some("32\n"), ""),
            ("burn-in.target", None, ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let efi = dir.path().join("efi");
            if let Some(bits) = bits {
                fs::create_dir(&efi).unwrap();
                fs::write(efi.join("fw_platform_size"), bits).unwrap();
            }
            let error = check(&recipe(target), &efi).err().map(|error| format!("{error:#}"));
            let error = error.unwrap_or_default();
            assert!(
                error.starts_with(expected) && error.is_empty() == expected.is_empty(),
                "{error}"
            );
        }
    }

    #[test]
    fn a_firmware_mode_that_cannot_be_read_is_not_taken_for_uefi() {
        let dir = tempfile::tempdir().unwrap();
        let error = check(&recipe("install-linux.target"), dir.path()).unwrap_err();
        assert!(format!("{error:#}").contains("fw_platform_size"), "{error:#}");
    }
}
