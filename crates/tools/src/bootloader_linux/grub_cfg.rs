// SPDX-License-Identifier: AGPL-3.0-or-later
//! The configuration files of GRUB. Pure: the same kernels and filesystems give the same bytes. The files load
//! no modules: every GRUB on the ESP has what it needs built in, and under Secure Boot it could not load
//! any.

use super::filesystems::{self, Filesystem};
use super::kernel_words;
use super::kernels::Kernel;
use super::system::System;

/// Long enough to press a key on a serial console.
const TIMEOUT_SECS: u32 = 2;
/// A machine without an operator must not wait for one.
const TIMEOUT_SECS_MAX: u32 = 30;

/// `grub.cfg` beside the boot loader on the ESP: it loads the one in `/boot`.
pub fn stub(filesystems: &[Filesystem], grub_dir: &str) -> anyhow::Result<String> {
    let (boot, prefix) = filesystems::boot(filesystems)?;
    Ok(format!(
        "search --no-floppy --fs-uuid --set=root {}\n\
         set prefix=($root)'{prefix}/{grub_dir}'\n\
         configfile $prefix/grub.cfg\n",
        boot.uuid
    ))
}

/// `grub.cfg` in `/boot`.
pub fn grub_cfg(
    system: &System,
    kernels: &[Kernel],
    filesystems: &[Filesystem],
) -> anyhow::Result<String> {
    let (boot, prefix) = filesystems::boot(filesystems)?;
    let own_words = all_words(system, filesystems)?;
    let words: Vec<String> = own_words.iter().map(|word| quoted(word)).collect();
    let mut text = format!(
        "# Written when this system was installed. Its own update-grub or grub2-mkconfig may\n\
         # replace this file.\n\
         set default=0\n\
         set timeout={}\n{}\
         search --no-floppy --fs-uuid --set=root {}\n",
        timeout(system),
        terminal(system),
        boot.uuid
    );
    if system.has_entries {
        // The system adds an entry for each new kernel. The entries below are for a GRUB without blscfg.
        // Entries of EL 8 take their command line from this variable.
        text.push_str(&format!(
            "set kernelopts={}\nblscfg\n",
            quoted(&kernel_words::line(&own_words))
        ));
    }
    for (at, kernel) in kernels.iter().enumerate() {
        let title = match at {
            0 => system.name.clone(),
            _ => format!("{}, with Linux {}", system.name, kernel.version),
        };
        text.push_str(&format!(
            "menuentry {} --class gnu-linux --id {} {{\n\tlinux {prefix}/{} {}\n",
            quoted(&title),
            quoted(&format!("linux-{}", kernel.version)),
            quoted(&kernel.file),
            words.join(" ")
        ));
        if let Some(initramfs) = &kernel.initramfs {
            text.push_str(&format!("\tinitrd {prefix}/{}\n", quoted(initramfs)));
        }
        text.push_str("}\n");
    }
    Ok(text)
}

/// The entry of a kernel in the format of the Boot Loader Specification: file name and text.
pub fn entry(
    system: &System,
    kernel: &Kernel,
    filesystems: &[Filesystem],
    token: &str,
) -> anyhow::Result<(String, String)> {
    let (_, prefix) = filesystems::boot(filesystems)?;
    let words = kernel_words::line(&all_words(system, filesystems)?);
    let Kernel { version, file, initramfs } = kernel;
    let mut text = format!(
        "title {} ({version})\nversion {version}\nlinux {prefix}/{file}\n",
        system.name.replace('\n', " ")
    );
    if let Some(initramfs) = initramfs {
        text.push_str(&format!("initrd {prefix}/{initramfs}\n"));
    }
    text.push_str(&format!("options {words}\ngrub_class {}\n", system.id));
    Ok((format!("{token}-{version}.conf"), text))
}

/// The command line as one line. kernel-install(8) uses it for the entries of later kernels.
pub fn cmdline(system: &System, filesystems: &[Filesystem]) -> anyhow::Result<String> {
    Ok(kernel_words::line(&all_words(system, filesystems)?))
}

fn all_words(system: &System, filesystems: &[Filesystem]) -> anyhow::Result<Vec<String>> {
    let mut words =
        vec![format!("root=UUID={}", filesystems::root(filesystems)?.uuid), "ro".into()];
    // dracut looks for the kernel's checksum in /boot, and refuses to boot without it (dracut-fips).
    if system.kernel_words.iter().any(|word| word == "fips=1")
        && let Some(boot) = filesystems::find(filesystems, "/boot")
    {
        words.push(format!("boot=UUID={}", boot.uuid));
    }
    words.extend(system.kernel_words.iter().cloned());
    Ok(words)
}

fn timeout(system: &System) -> u32 {
    let asked = system.settings.get("GRUB_TIMEOUT").and_then(|text| text.parse().ok());
    asked.unwrap_or(TIMEOUT_SECS).min(TIMEOUT_SECS_MAX)
}

/// The terminals that the image configures, if they are plain words.
fn terminal(system: &System) -> String {
    let plain = |name: &str| {
        let is_plain = |l: char| l.is_ascii_alphanumeric() || " -_=,.".contains(l);
        let text = system.settings.get(name)?.trim();
        (!text.is_empty() && text.chars().all(is_plain)).then(|| text.to_owned())
    };
    let both = plain("GRUB_TERMINAL");
    let lines = [
        plain("GRUB_SERIAL_COMMAND"),
        plain("GRUB_TERMINAL_INPUT").or(both.clone()).map(|to| format!("terminal_input {to}")),
        plain("GRUB_TERMINAL_OUTPUT").or(both).map(|to| format!("terminal_output {to}")),
    ];
    lines.into_iter().flatten().map(|line| line + "\n").collect()
}

/// Quotes a word for GRUB's shell, if necessary.
fn quoted(word: &str) -> String {
    let is_plain = |l: char| l.is_ascii_alphanumeric() || "_@%+=:,./-".contains(l);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use recipe::Format;

    use super::super::default_grub::Settings;
    use super::super::filesystems::tests::filesystem;
    use super::*;

    fn system(settings: &str, has_entries: bool) -> System {
        let mut parsed = Settings::default();
        parsed.read(settings);
        System {
            id: "debian".into(),
            name: "Debian's 13 (trixie)".into(),
            grub_dir: "grub",
            has_entries,
            settings: parsed,
            kernel_words: vec!["console=ttyS0,115200n8".into(), "dyndbg=file a +p; reboot".into()],
            dropped_words: Vec::new(),
        }
    }

    fn kernels() -> Vec<Kernel> {
        super::super::kernels::among(&[
            "vmlinuz-6.12.9-amd64".to_owned(),
            "vmlinuz-6.12.10-amd64".to_owned(),
            "initrd.img-6.12.10-amd64".to_owned(),
        ])
    }

    fn one_filesystem() -> Vec<Filesystem> {
        vec![filesystem(2, Format::Ext4, "1111-root", "/")]
    }

    fn separate_boot() -> Vec<Filesystem> {
        vec![
            filesystem(3, Format::Xfs, "1111-root", "/"),
            filesystem(2, Format::Ext4, "2222-boot", "/boot"),
        ]
    }

    #[test]
    fn a_menu_for_one_filesystem() {
        let expected = r"# Written when this system was installed. Its own update-grub or grub2-mkconfig may
# replace this file.
set default=0
set timeout=2
search --no-floppy --fs-uuid --set=root 1111-root
menuentry 'Debian'\''s 13 (trixie)' --class gnu-linux --id linux-6.12.10-amd64 {
	linux /boot/vmlinuz-6.12.10-amd64 root=UUID=1111-root ro console=ttyS0,115200n8 'dyndbg=file a +p; reboot'
	initrd /boot/initrd.img-6.12.10-amd64
}
menuentry 'Debian'\''s 13 (trixie), with Linux 6.12.9-amd64' --class gnu-linux --id linux-6.12.9-amd64 {
	linux /boot/vmlinuz-6.12.9-amd64 root=UUID=1111-root ro console=ttyS0,115200n8 'dyndbg=file a +p; reboot'
}
";
        let text = grub_cfg(&system("", false), &kernels(), &one_filesystem()).unwrap();
        assert_eq!(text, expected);
    }

    #[test]
    fn a_menu_for_a_separate_boot_partition_with_entries() {
        let settings = "GRUB_TIMEOUT=-1\nGRUB_TERMINAL=\"serial console\"\n\
                        GRUB_SERIAL_COMMAND=\"serial --speed=115200 --unit=0\"\n";
        let system = system(settings, true);
        let expected = r#"# Written when this system was installed. Its own update-grub or grub2-mkconfig may
# replace this file.
set default=0
set timeout=2
serial --speed=115200 --unit=0
terminal_input serial console
terminal_output serial console
search --no-floppy --fs-uuid --set=root 2222-boot
set kernelopts='root=UUID=1111-root ro console=ttyS0,115200n8 dyndbg="file a +p; reboot"'
blscfg
menuentry 'Debian'\''s 13 (trixie)' --class gnu-linux --id linux-6.12.10-amd64 {
	linux /vmlinuz-6.12.10-amd64 root=UUID=1111-root ro console=ttyS0,115200n8 'dyndbg=file a +p; reboot'
	initrd /initrd.img-6.12.10-amd64
}
"#;
        let text = grub_cfg(&system, &kernels()[..1], &separate_boot()).unwrap();
        assert_eq!(text, expected);
        let (name, text) = entry(&system, &kernels()[0], &separate_boot(), "token").unwrap();
        assert_eq!(name, "token-6.12.10-amd64.conf");
        let expected = "\
title Debian's 13 (trixie) (6.12.10-amd64)
version 6.12.10-amd64
linux /vmlinuz-6.12.10-amd64
initrd /initrd.img-6.12.10-amd64
options root=UUID=1111-root ro console=ttyS0,115200n8 dyndbg=\"file a +p; reboot\"
grub_class debian
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_system_in_fips_mode_is_told_where_its_own_boot_partition_is() {
        let mut system = system("", false);
        system.kernel_words = vec!["fips=1".into()];
        let separate = cmdline(&system, &separate_boot()).unwrap();
        assert_eq!(separate, "root=UUID=1111-root ro boot=UUID=2222-boot fips=1");
        assert_eq!(cmdline(&system, &one_filesystem()).unwrap(), "root=UUID=1111-root ro fips=1");
    }

    #[test]
    fn the_stub_leads_to_boot() {
        let expected = "search --no-floppy --fs-uuid --set=root 1111-root\n\
                        set prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n";
        assert_eq!(stub(&one_filesystem(), "grub").unwrap(), expected);
        let expected = "search --no-floppy --fs-uuid --set=root 2222-boot\n\
                        set prefix=($root)'/grub2'\nconfigfile $prefix/grub.cfg\n";
        assert_eq!(stub(&separate_boot(), "grub2").unwrap(), expected);
    }

    #[test]
    fn timeouts_never_wait_for_ever() {
        for (setting, expected) in
            [("", 2), ("GRUB_TIMEOUT=0", 0), ("GRUB_TIMEOUT=5", 5), ("GRUB_TIMEOUT=999", 30)]
        {
            assert_eq!(timeout(&system(setting, false)), expected, "{setting}");
        }
    }
}
