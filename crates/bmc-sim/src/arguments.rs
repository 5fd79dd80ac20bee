// SPDX-License-Identifier: AGPL-3.0-or-later
//! The QEMU command line of the simulated machine. Pure.
//!
//! It contains no media: the machine starts paused, with two empty drives, and media are inserted over QMP.
//! So a medium that is inserted while the power is off is handled like one that is inserted later.

use std::{net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

use crate::{
    maker::{Maker, Names, names},
    settings::{DiskBus, Firmware, Settings},
    slots::Slot,
};

/// The devices that the firmware tries first. If none of them boots, it tries the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootOrder {
    DiskFirst,
    CdsFirst,
}

// Between the two ranges for CDs, so that moving a CD never collides with the disk: QEMU refuses
// two devices with one index, even for a moment.
const DISK_BOOT_INDEX: u8 = 10;

impl BootOrder {
    /// QEMU's `bootindex` of a slot. A lower index is tried earlier.
    pub(crate) fn index(self, slot: Slot) -> u8 {
        let first = match self {
            BootOrder::CdsFirst => 1,
            BootOrder::DiskFirst => DISK_BOOT_INDEX + 1,
        };
        first + slot as u8
    }
}

/// Linux' number of an input/output error.
const EIO: u8 = 5;

pub(crate) const CONSOLE: &str = "console.log";
pub(crate) const VISITOR_SOCKET: &str = "qmp.sock";
pub(crate) const NVRAM: &str = "nvram.fd";

/// The arguments of `qemu-system-x86_64`. It must run in the work directory, because the length of a unix
/// socket's path is limited.
pub(crate) fn arguments(settings: &Settings, order: BootOrder) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        // Paused until the media are inserted.
        "-S",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
    ]
    .map(String::from)
    .to_vec();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);

    match &settings.firmware {
        Firmware::Uefi { code, .. } => {
            add("-machine", "q35,pflash0=firmware,pflash1=nvram".into());
            add("-blockdev", file_node("firmware", code, true).to_string());
            add("-blockdev", file_node("nvram", Path::new(NVRAM), false).to_string());
        }
        Firmware::Bios => add("-machine", "q35".into()),
    }
    add("-smp", settings.cpus.to_string());
    add("-m", settings.memory_mib.to_string());
    for table in smbios(settings) {
        add("-smbios", table);
    }
    add("-blockdev", disk_node(&settings.disk, settings.disk_bad_sector).to_string());
    add("-device", disk_device(settings.disk_bus));
    for slot in settings.slots.all() {
        let Some(bus) = slot.drive_bus() else { continue };
        let (device, index) = (slot.device(), order.index(*slot));
        // A failed read pauses the machine: it waits while the media server is unreachable, as with a BMC that
        // repeats its request. `machine` resumes it. QEMU pauses only for DMA. A firmware reads by PIO and
        // sees the failure.
        add("-device", format!("ide-cd,id={device},bus={bus},bootindex={index},rerror=stop"));
    }
    if settings.slots.all().contains(&Slot::Usb1) {
        add("-device", "qemu-xhci,id=usb".into());
    }
    add("-netdev", netdev(settings.ssh_port));
    add("-device", network_device(settings.mac.as_deref()));
    add("-device", "VGA".into());
    add("-chardev", format!("file,id=console,path={CONSOLE},append=on"));
    add("-serial", "chardev:console".into());
    add("-chardev", "stdio,id=bmc,signal=off".into());
    add("-mon", "chardev=bmc,mode=control".into());
    // A monitor serves one client at a time. This one is for tests and for users who want to look.
    add("-chardev", format!("socket,id=visitor,path={VISITOR_SOCKET},server=on,wait=off"));
    add("-mon", "chardev=visitor,mode=control".into());
    arguments
}

/// The block node of a medium that this process serves at a unix socket in the work directory.
pub(crate) fn medium_node(node: &str, socket: &str) -> Value {
    let server = json!({ "type": "unix", "path": socket });
    let file = json!({ "driver": "nbd", "server": server });
    json!({ "node-name": node, "driver": "raw", "read-only": true, "file": file })
}

fn file_node(node: &str, path: &Path, is_read_only: bool) -> Value {
    json!({
        "node-name": node,
        "driver": "raw",
        "read-only": is_read_only,
        "file": { "driver": "file", "filename": path },
    })
}

fn disk_node(path: &Path, bad_sector: Option<u64>) -> Value {
    let file = json!({ "driver": "file", "filename": path, "discard": "unmap" });
    let file = match bad_sector {
        None => file,
        Some(sector) => json!({
            "driver": "blkdebug",
            "discard": "unmap",
            "image": file,
            "inject-error": [{
                "event": "read_aio",
                // Without it, a write after a failed read would fail too.
                "iotype": "read",
                "errno": EIO,
                "sector": sector,
                "once": false,
            }],
        }),
    };
    json!({
        "node-name": "disk",
        "driver": "raw",
        "discard": "unmap",
        "detect-zeroes": "unmap",
        // The host's page cache survives the end of QEMU, and nothing more is promised.
        "cache": { "no-flush": true },
        "file": file,
    })
}

fn disk_device(bus: DiskBus) -> String {
    let driver = match bus {
        DiskBus::Virtio => "virtio-blk-pci",
        DiskBus::Sata => "ide-hd,bus=ide.0",
        DiskBus::Nvme => "nvme",
    };
    format!("{driver},drive=disk,serial=SHOALDISK1,bootindex={DISK_BOOT_INDEX}")
}

fn netdev(ssh_port: Option<u16>) -> String {
    match ssh_port {
        Some(port) => format!("user,id=net,hostfwd=tcp:{}:{port}-:22", Ipv4Addr::LOCALHOST),
        None => "user,id=net".into(),
    }
}

fn network_device(mac: Option<&str>) -> String {
    // No option ROM: OVMF has its own driver, which also supports HTTP boot.
    let device = "virtio-net-pci,netdev=net,romfile=";
    match mac {
        Some(mac) => format!("{device},mac={}", escaped(mac)),
        None => device.into(),
    }
}

/// The SMBIOS tables of system, board and chassis. The last two contain only the values that were set.
fn smbios(settings: &Settings) -> Vec<String> {
    let (serial, uuid) = (escaped(&settings.serial), settings.uuid);
    let Names { manufacturer, model, .. } = names(settings.maker);
    let system = format!("type=1,manufacturer={manufacturer},product={model}");
    let (system, board) = match settings.maker {
        Maker::Lab | Maker::Supermicro | Maker::Lenovo => (system, settings.board_serial.clone()),
        Maker::Dell => (
            format!("{system},sku=SKU=NotProvided;ModelName={model}"),
            settings.board_serial.as_ref().map(|board| format!(".{}.{board}.", settings.serial)),
        ),
    };
    let mut tables = vec![format!("{system},serial={serial},uuid={uuid}")];
    for (number, serial) in [(2, &board), (3, &settings.chassis_serial)] {
        let serial = serial.as_deref().map(escaped);
        tables
            .extend(serial.map(|serial| {
                format!("type={number},manufacturer={manufacturer},serial={serial}")
            }));
    }
    tables
}

/// A value inside a comma-separated QEMU option.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::slots::Slots;

    fn settings() -> Settings {
        Settings {
            work_dir: "/lab".into(),
            disk: "/lab/disk,1.raw".into(),
            disk_bytes: 1 << 30,
            disk_bus: DiskBus::Virtio,
            disk_bad_sector: None,
            maker: Maker::Lab,
            serial: "SN1".into(),
            board_serial: None,
            chassis_serial: None,
            redfish_serial: None,
            redfish_sku: None,
            uuid: Uuid::nil(),
            memory_mib: 3072,
            cpus: 2,
            ssh_port: None,
            mac: None,
            firmware: Firmware::Uefi { code: "/fw/code.fd".into(), vars: "/fw/vars.fd".into() },
            slots: Slots::TwoCds,
        }
    }

    fn dell() -> Settings {
        Settings {
            maker: Maker::Dell,
            serial: "ABC1234".into(),
            board_serial: Some("CNEXAMPLE00001".into()),
            chassis_serial: Some("ABC1234".into()),
            ..settings()
        }
    }

    #[track_caller]
    fn check(settings: &Settings, order: BootOrder, option: &str, value: &str) {
        let all = arguments(settings, order);
        let found = all.windows(2).any(|pair| pair[0] == option && pair[1] == value);
        assert!(found, "no {option} {value} in {all:#?}");
    }

    #[test]
    fn what_the_user_asks_for_is_on_the_command_line() {
        let (plain, disk_first) = (settings(), BootOrder::DiskFirst);
        let smbios = "type=1,manufacturer=Shoal,product=Lab,serial=";
        let nil = "uuid=00000000-0000-0000-0000-000000000000";
        check(&plain, disk_first, "-smbios", &format!("{smbios}SN1,{nil}"));
        let commas = Settings { serial: "a,uuid=b".into(), ..settings() };
        check(&commas, disk_first, "-smbios", &format!("{smbios}a,,uuid=b,{nil}"));

        check(&plain, disk_first, "-netdev", "user,id=net");
        let ssh = Settings { ssh_port: Some(2222), ..settings() };
        check(&ssh, disk_first, "-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:2222-:22");
        let mac = Settings { mac: Some("52:54:00:00:00:01".into()), ..settings() };
        let device = "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:00:00:01";
        check(&mac, disk_first, "-device", device);

        for (bus, device) in [
            (DiskBus::Virtio, "virtio-blk-pci,drive=disk,serial=SHOALDISK1,bootindex=10"),
            (DiskBus::Sata, "ide-hd,bus=ide.0,drive=disk,serial=SHOALDISK1,bootindex=10"),
            (DiskBus::Nvme, "nvme,drive=disk,serial=SHOALDISK1,bootindex=10"),
        ] {
            check(&Settings { disk_bus: bus, ..settings() }, disk_first, "-device", device);
        }
    }

    #[test]
    fn a_bios_machine_has_no_flash() {
        let bios = Settings { firmware: Firmware::Bios, ..settings() };
        check(&bios, BootOrder::CdsFirst, "-machine", "q35");
        let all = arguments(&bios, BootOrder::CdsFirst).concat();
        assert!(!all.contains("pflash") && !all.contains(NVRAM), "{all}");
        check(&settings(), BootOrder::CdsFirst, "-machine", "q35,pflash0=firmware,pflash1=nvram");
    }

    #[test]
    fn a_bad_sector_fails_reads_only_and_always() {
        let bad = Settings { disk_bad_sector: Some(2048), ..settings() };
        let file = &disk_node(&bad.disk, bad.disk_bad_sector)["file"];
        assert_eq!(file["driver"], "blkdebug");
        assert_eq!(
            file["inject-error"],
            json!([{"event": "read_aio", "iotype": "read", "errno": 5, "sector": 2048, "once": false}])
        );
        assert_eq!(file["image"]["filename"], "/lab/disk,1.raw");
        assert_eq!(disk_node(&bad.disk, None)["file"]["driver"], "file");
    }

    /// QEMU accepts each of these command lines: it starts, responds to a query, and quits.
    #[test]
    fn qemu_takes_every_shape() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.raw");
        std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let base =
            Settings { disk, memory_mib: 64, cpus: 1, firmware: Firmware::Bios, ..settings() };
        let shapes = [
            base.clone(),
            Settings { disk_bad_sector: Some(7), disk_bus: DiskBus::Sata, ..base.clone() },
            Settings { disk_bad_sector: Some(7), disk_bus: DiskBus::Nvme, ..base.clone() },
            Settings {
                disk: base.disk.clone(),
                firmware: Firmware::Bios,
                memory_mib: 64,
                disk_bad_sector: Some(0),
                slots: Slots::CdAndUsb,
                ..dell()
            },
        ];
        for shape in shapes {
            let said = talk(&arguments(&shape, BootOrder::CdsFirst), dir.path(), &[]);
            assert!(said.contains("\"status\": \"prelaunch\""), "{said}");
        }
    }

    #[test]
    fn only_a_read_that_touches_the_bad_sector_fails() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.raw");
        std::fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let bad = Settings {
            disk,
            memory_mib: 64,
            cpus: 1,
            firmware: Firmware::Bios,
            disk_bad_sector: Some(7),
            ..settings()
        };
        let all = arguments(&bad, BootOrder::CdsFirst);
        let read = "read failed: Input/output error";
        for (command, fails) in [
            ("read 0 3584", false),
            ("read 3584 512", true),
            ("read 0 4096", true),
            ("read 4096 512", false),
            ("write 3584 512", false),
        ] {
            // The write comes after a read, so the fault is armed by then.
            let said = talk(&all, dir.path(), &["read 0 512", command, "read 3584 512"]);
            assert_eq!(said.matches(read).count(), 1 + usize::from(fails), "{command}: {said}");
        }
    }

    /// Starts QEMU, queries its status, runs these `qemu-io` commands on its disk, and quits. Returns QEMU's output on
    /// QMP.
    fn talk(arguments: &[String], dir: &Path, on_disk: &[&str]) -> String {
        use std::{
            io::Write,
            process::{Command, Stdio},
        };
        let mut child = Command::new("qemu-system-x86_64")
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let plain = |name: &str| json!({ "execute": name });
        let disk = |command: &&str| {
            let line = format!("qemu-io disk \"{command}\"");
            json!({ "execute": "human-monitor-command", "arguments": { "command-line": line } })
        };
        let lines = [plain("qmp_capabilities"), plain("query-status")]
            .into_iter()
            .chain(on_disk.iter().map(disk))
            .chain([plain("quit")]);
        for line in lines {
            // A QEMU that rejected its arguments has ended. Its output is shown below.
            let _ = writeln!(child.stdin.as_mut().unwrap(), "{line}");
        }
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        text(&output.stdout) + &text(&output.stderr)
    }

    #[test]
    fn cds_come_before_the_disk_only_when_asked() {
        for (order, cd1, cd2) in [(BootOrder::CdsFirst, 1, 2), (BootOrder::DiskFirst, 11, 12)] {
            let cd1 = format!("ide-cd,id=cd1,bus=ide.1,bootindex={cd1},rerror=stop");
            let cd2 = format!("ide-cd,id=cd2,bus=ide.2,bootindex={cd2},rerror=stop");
            check(&settings(), order, "-device", &cd1);
            check(&settings(), order, "-device", &cd2);
        }
        let one = Settings { slots: Slots::CdAndUsb, ..settings() };
        check(&one, BootOrder::CdsFirst, "-device", "qemu-xhci,id=usb");
        assert!(!arguments(&one, BootOrder::CdsFirst).concat().contains("cd2"));
        let none = Settings { slots: Slots::Http, ..settings() };
        assert!(!arguments(&none, BootOrder::DiskFirst).concat().contains("ide-cd"));
    }

    #[test]
    fn a_dell_says_its_tag_in_the_system_and_its_boards_serial_in_redfish() {
        let nil = "uuid=00000000-0000-0000-0000-000000000000";
        for (settings, tables, serial, sku) in [
            (
                settings(),
                vec![format!("type=1,manufacturer=Shoal,product=Lab,serial=SN1,{nil}")],
                "SN1",
                None,
            ),
            (
                Settings {
                    board_serial: Some("B,1".into()),
                    chassis_serial: Some("C1".into()),
                    redfish_serial: Some("R1".into()),
                    redfish_sku: Some("P123-B21".into()),
                    ..settings()
                },
                vec![
                    format!("type=1,manufacturer=Shoal,product=Lab,serial=SN1,{nil}"),
                    "type=2,manufacturer=Shoal,serial=B,,1".into(),
                    "type=3,manufacturer=Shoal,serial=C1".into(),
                ],
                "R1",
                Some("P123-B21"),
            ),
            (
                dell(),
                vec![
                    format!(
                        "type=1,manufacturer=Dell Inc.,product=PowerEdge R660,\
                         sku=SKU=NotProvided;ModelName=PowerEdge R660,serial=ABC1234,{nil}"
                    ),
                    "type=2,manufacturer=Dell Inc.,serial=.ABC1234.CNEXAMPLE00001.".into(),
                    "type=3,manufacturer=Dell Inc.,serial=ABC1234".into(),
                ],
                "CNEXAMPLE00001",
                Some("ABC1234"),
            ),
        ] {
            assert_eq!(smbios(&settings), tables);
            assert_eq!(settings.shown_serial(), serial);
            assert_eq!(settings.shown_sku().as_deref(), sku);
        }
    }
}
