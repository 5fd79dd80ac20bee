// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks that a program in the installed system reads the configuration drive. Without one, a recipe's
//! `user_data` is written and has no effect. The check fails only if it is certain that nothing reads the drive. The
//! files and units that it looks for are in [`READERS`] and [`UNITS`].

use std::io;
use std::path::Path;

use anyhow::{Context, bail};
use recipe::Linux;

use crate::beneath::Root;
use crate::bootloader_linux;

/// A configuration file is small.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Programs that read a NoCloud drive: cloud-init, Alpine's tiny-cloud, and the one of Container Linux.
const READERS: &[&str] = &[
    "usr/bin/cloud-init",
    "usr/local/bin/cloud-init",
    "usr/bin/tiny-cloud",
    "usr/sbin/tiny-cloud",
    "usr/lib/tiny-cloud/init",
    "lib/tiny-cloud/init",
    "usr/bin/coreos-cloudinit",
];
/// Directories of units and start-up scripts. Other programs may also name their unit `cloud-init*`.
const UNITS: &[&str] =
    &["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system", "etc/init.d"];
/// Units of cloud-init before and since 24.3. Masking any of them disables cloud-init.
const CLOUD_INIT_UNITS: &[&str] = &[
    "cloud-init.target",
    "cloud-init-local.service",
    "cloud-init.service",
    "cloud-init-main.service",
    "cloud-init-network.service",
    "cloud-config.service",
    "cloud-final.service",
];
const DISABLED: &str = "etc/cloud/cloud-init.disabled";
/// The settings of cloud-init's generator (ds-identify).
const DS_IDENTIFY: &str = "etc/cloud/ds-identify.cfg";
const CONFIG: &str = "etc/cloud/cloud.cfg";
const CONFIG_DIR: &str = "etc/cloud/cloud.cfg.d";
const DATASOURCE: &str = "NoCloud";

/// The first field of the recipe that the installed system has to read.
pub fn given(linux: &Linux) -> Option<&'static str> {
    let fields = [
        ("user_data", &linux.user_data),
        ("network_config", &linux.network_config),
        ("meta_data", &linux.meta_data),
    ];
    fields.into_iter().find(|(_, payload)| payload.is_some()).map(|(name, _)| name)
}

/// Fails, with the cause and the remedy, if these fields would not be read.
pub fn check(root: &Root, linux: &Linux) -> anyhow::Result<()> {
    let Some(given) = given(linux) else { return Ok(()) };
    if let Some(why) = unread(root)? {
        bail!("the recipe has {given}, but nothing on the installed system would read it: {why}");
    }
    if linux.network_config.is_some()
        && let Some(path) = network_is_disabled(root)?
    {
        bail!(
            "the recipe has network_config, but the installed system would not use it: /{path} has \
             `network: {{config: disabled}}`; push an image without it"
        );
    }
    Ok(())
}

fn unread(root: &Root) -> anyhow::Result<Option<String>> {
    if !READERS.iter().any(|path| root.exists(Path::new(path))) && !has_unit(root)? {
        return Ok(Some(
            "the image has no cloud-init; push an image that has, or remove it from the recipe"
                .into(),
        ));
    }
    if root.exists(Path::new(DISABLED)) {
        return Ok(Some(format!("/{DISABLED} switches cloud-init off; push an image without it")));
    }
    for unit in CLOUD_INIT_UNITS {
        let path = Path::new("etc/systemd/system").join(unit);
        if is_masked(root, &path).with_context(|| format!("read /{}", path.display()))? {
            return Ok(Some(format!(
                "{unit} is masked; push an image in which it is not (systemctl unmask {unit})"
            )));
        }
    }
    if bootloader_linux::kernel_words(root)?.iter().any(|word| word == "cloud-init=disabled") {
        return Ok(Some("the kernel command line of the image has cloud-init=disabled".into()));
    }
    for line in text(root, DS_IDENTIFY)?.lines().map(str::trim) {
        if line.strip_prefix("policy:").is_some_and(|policy| policy.trim() == "disabled") {
            return Ok(Some(format!(
                "/{DS_IDENTIFY} has `policy: disabled`; push an image without it"
            )));
        }
        let datasource = line.strip_prefix("datasource:").map(str::trim);
        if datasource.is_some_and(|name| !name.is_empty() && !is_ours(name)) {
            return Ok(Some(format!(
                "/{DS_IDENTIFY} has `{line}`; it must be {DATASOURCE}, or absent"
            )));
        }
    }
    datasource_list(root)
}

/// Why `datasource_list` excludes the drive. The list of the last file that has one applies.
fn datasource_list(root: &Root) -> anyhow::Result<Option<String>> {
    let mut last = None;
    for path in config_files(root)? {
        if let Some(names) = datasources(&text(root, &path)?) {
            last = Some((path, names));
        }
    }
    // An empty list means all datasources.
    Ok(last.filter(|(_, names)| !names.is_empty() && !names.iter().any(|name| is_ours(name))).map(
        |(path, names)| {
            format!(
                "/{path} has `datasource_list: [{}]`, without {DATASOURCE}; add it there",
                names.join(", ")
            )
        },
    ))
}

/// The file that disables cloud-init's network configuration, as some installers leave one.
fn network_is_disabled(root: &Root) -> anyhow::Result<Option<String>> {
    let mut last = None;
    for path in config_files(root)? {
        if let Some(is_disabled) = disables_network(&text(root, &path)?) {
            last = is_disabled.then_some(path);
        }
    }
    Ok(last)
}

/// Whether `network` in a YAML file is `{config: disabled}`. `None` if the file has no `network`.
fn disables_network(yaml: &str) -> Option<bool> {
    let mut lines =
        yaml.lines().map(without_comment).skip_while(|line| !line.starts_with("network:"));
    let mut value = lines.next()?;
    value.extend(lines.take_while(|line| line.is_empty() || line.starts_with([' ', '\t'])));
    let plain: String =
        value.chars().filter(|l| !l.is_whitespace() && !"{}\"'".contains(*l)).collect();
    Some(plain == "network:config:disabled")
}

/// Configuration files in order: later ones override earlier ones.
fn config_files(root: &Root) -> anyhow::Result<Vec<String>> {
    let names = root.list(Path::new(CONFIG_DIR)).with_context(|| format!("list /{CONFIG_DIR}"))?;
    let parts = names.iter().filter(|name| name.ends_with(".cfg"));
    let parts = parts.map(|name| format!("{CONFIG_DIR}/{name}"));
    Ok([CONFIG.to_owned()].into_iter().chain(parts).collect())
}

fn without_comment(line: &str) -> String {
    line.split(" #").next().unwrap_or_default().trim_end().to_owned()
}

fn is_ours(name: &str) -> bool {
    name.eq_ignore_ascii_case(DATASOURCE)
}

/// `datasource_list` of a YAML file, in brackets or one per line. `None` if the file has none.
fn datasources(yaml: &str) -> Option<Vec<String>> {
    let name = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    let mut lines = yaml.lines().map(without_comment);
    let mut value = lines.by_ref().find_map(|line| {
        line.strip_prefix("datasource_list").and_then(|rest| {
            rest.trim_start().strip_prefix(':').map(|value| value.trim().to_owned())
        })
    })?;
    if value.starts_with('[') {
        while !value.contains(']') {
            value.push_str(&lines.next()?);
        }
        let inside = value.trim_start_matches('[').split(']').next().unwrap_or_default();
        return Some(inside.split(',').map(name).filter(|name| !name.is_empty()).collect());
    }
    if !value.is_empty() {
        return Some(vec![name(&value)]);
    }
    let mut names = Vec::new();
    for line in lines {
        match line.trim_start() {
            "" => {}
            comment if comment.starts_with('#') => {}
            item => match item.strip_prefix('-') {
                Some(item) => names.push(name(item)),
                None => break,
            },
        }
    }
    Some(names)
}

fn has_unit(root: &Root) -> anyhow::Result<bool> {
    for dir in UNITS {
        let names =
            root.list(Path::new(dir)).with_context(|| format!("list /{dir} of the image"))?;
        if names.iter().any(|name| name.starts_with("cloud-init") || name == "tiny-cloud") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a unit is masked: a link to `/dev/null`, or an empty file (systemd.unit(5)).
fn is_masked(root: &Root, path: &Path) -> io::Result<bool> {
    match root.read_link(path)? {
        Some(to) => Ok(to == Path::new("/dev/null")),
        None => match root.file(path) {
            Ok(file) => Ok(file.metadata()?.len() == 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        },
    }
}

fn text(root: &Root, path: &str) -> anyhow::Result<String> {
    let bytes = root.read(Path::new(path), CONFIG_BYTES_MAX);
    let bytes = bytes.with_context(|| format!("read /{path} of the image"))?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why an image with these files and these links would not read its drive.
    fn why(files: &[(&str, &str)], links: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for (path, text) in files {
            std::fs::write(place(path), text).unwrap();
        }
        for (path, to) in links {
            std::os::unix::fs::symlink(to, place(path)).unwrap();
        }
        unread(&Root::open(dir.path()).unwrap()).unwrap().unwrap_or_default()
    }

    #[test]
    fn user_data_that_nothing_would_read_is_told_with_its_cause() {
        let cloud_init = ("usr/bin/cloud-init", "#!/usr/bin/python3");
        let ec2 = ("etc/cloud/cloud.cfg.d/90_dpkg.cfg", "datasource_list: [ Ec2, None ]\n");
        let mask = ("etc/systemd/system/cloud-init-local.service", "/dev/null");
        let enabled = (
            "etc/systemd/system/cloud-init.target.wants/cloud-init.service",
            "/usr/lib/systemd/system/cloud-init.service",
        );
        let alias =
            ("etc/systemd/system/cloud-init.service", "/usr/lib/systemd/system/cloud-init.service");
        let grub = "GRUB_CMDLINE_LINUX=\"quiet cloud-init=disabled\"\n";
        // Files, links, a part of the cause; empty if the drive is read.
        for (files, links, expected) in [
            (&[("etc/passwd", "")][..], &[][..], "has no cloud-init"),
            (&[cloud_init], &[], ""),
            (&[cloud_init], &[enabled, alias], ""),
            (&[("usr/sbin/tiny-cloud", "")], &[], ""),
            (&[("lib/systemd/system/cloud-init-own.service", "[Unit]")], &[], ""),
            (&[("etc/init.d/cloud-init", "")], &[], ""),
            (&[cloud_init, ("etc/cloud/cloud-init.disabled", "")], &[], "switches cloud-init off"),
            (&[cloud_init], &[mask], "cloud-init-local.service is masked"),
            (
                &[cloud_init, ("etc/systemd/system/cloud-final.service", "")],
                &[],
                "cloud-final.service is masked",
            ),
            (&[cloud_init, ("etc/default/grub", grub)], &[], "has cloud-init=disabled"),
            (
                &[cloud_init, ("etc/default/grub", "#GRUB_CMDLINE_LINUX=cloud-init=disabled")],
                &[],
                "",
            ),
            (&[cloud_init, ("etc/cloud/ds-identify.cfg", "policy: disabled\n")], &[], "policy"),
            (
                &[cloud_init, ("etc/cloud/ds-identify.cfg", "datasource: Ec2\n")],
                &[],
                "datasource: Ec2",
            ),
            (&[cloud_init, ("etc/cloud/ds-identify.cfg", "datasource: NoCloud\n")], &[], ""),
            (&[cloud_init, ("etc/cloud/ds-identify.cfg", "policy: enabled\n")], &[], ""),
            (&[cloud_init, ec2], &[], "90_dpkg.cfg has `datasource_list: [Ec2, None]`"),
            // A later file overrides an earlier one.
            (
                &[cloud_init, ec2, ("etc/cloud/cloud.cfg.d/99.cfg", "datasource_list: [NoCloud]")],
                &[],
                "",
            ),
            (
                &[cloud_init, ec2, ("etc/cloud/cloud.cfg.d/99.txt", "datasource_list: [NoCloud]")],
                &[],
                "Ec2",
            ),
        ] {
            let why = why(files, links);
            assert!(
                why.contains(expected) && why.is_empty() == expected.is_empty(),
                "{files:?}: {why}"
            );
        }
    }

    #[test]
    fn a_network_that_cloud_init_must_not_set_is_seen() {
        for (yaml, expected) in [
            ("network: {config: disabled}\n", Some(true)),
            ("# why\nnetwork:\n  config: disabled # so\n\nusers: []\n", Some(true)),
            ("network: { \"config\": \"disabled\" }", Some(true)),
            ("network:\n  version: 2\n  ethernets: {}\n", Some(false)),
            (
                "# network: {config: disabled}\nsystem_info:\n  network:\n    config: disabled\n",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(disables_network(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn lists_of_datasources_are_read_in_each_way_to_write_them() {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let block =
            "users:\n - default\ndatasource_list:\n# why\n  - NoCloud\n  - \"None\"\nother: 1\n";
        for (yaml, expected) in [
            ("datasource_list: [ NoCloud, ConfigDrive ]", list(&["NoCloud", "ConfigDrive"])),
            ("datasource_list: ['Ec2', \"None\"] # why", list(&["Ec2", "None"])),
            (
                "datasource_list: [ Ec2,\n   NoCloud,\n   None ]\n",
                list(&["Ec2", "NoCloud", "None"]),
            ),
            (block, list(&["NoCloud", "None"])),
            ("datasource_list:\n- Ec2\n\n- None\n", list(&["Ec2", "None"])),
            ("datasource_list: []", list(&[])),
            ("# datasource_list: [Ec2]\n  datasource_list: [Ec2]\n", None),
            ("datasource:\n  Ec2: {}\n", None),
            ("datasource_list: [Ec2", None),
            ("", None),
        ] {
            assert_eq!(datasources(yaml), expected, "{yaml}");
        }
    }
}
