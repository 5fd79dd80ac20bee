// SPDX-License-Identifier: AGPL-3.0-or-later
//! The client against sushy-tools, an independent Redfish service, with its fake machine. `./x` fetches it. Without
//! it this test is skipped, except if CI is set.
#![expect(clippy::unwrap_used, reason = "clippy takes the helpers of a test for a program")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redfish::{Bmc, Budgets, Endpoint, Power, Secret, Shutdown, Trust, Wanted};
use url::Url;

const SERIAL: &str = "SN1";
/// Longest wait for its first response.
const START_MAX: Duration = Duration::from_secs(60);

/// Stops the emulator when the test ends.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn programs() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/sushy/bin");
    if dir.join("sushy-emulator").exists() {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "sushy-tools is missing; ./x test fetches it");
    eprintln!("skipped: no {}", dir.display());
    None
}

/// Writes the emulator's files to `dir` and starts it on `port`.
fn start(programs: &Path, dir: &Path, port: u16) -> (Emulator, [u8; 32]) {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA256, key.cert.der());
    std::fs::write(dir.join("cert.pem"), key.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let hash = Command::new(programs.join("python"))
        .args([
            "-c",
            "import bcrypt; print(bcrypt.hashpw(b'p', bcrypt.gensalt(4)).decode(), end='')",
        ])
        .output()
        .unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    std::fs::write(dir.join("htpasswd"), format!("u:{hash}\n")).unwrap();
    let shown = dir.display();
    let config = format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
         SUSHY_EMULATOR_SSL_CERT = '{shown}/cert.pem'\nSUSHY_EMULATOR_SSL_KEY = '{shown}/key.pem'\n\
         SUSHY_EMULATOR_AUTH_FILE = '{shown}/htpasswd'\nSUSHY_EMULATOR_STATE_DIR = '{shown}'\n\
         SUSHY_EMULATOR_FAKE_DRIVER = True\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': \
         'da69abcc-dae0-4913-9a7b-d344043097c0', 'name': 'node', 'power_state': 'Off', 'nics': []}}]\n"
    );
    std::fs::write(dir.join("config"), config).unwrap();
    let child = Command::new(programs.join("sushy-emulator"))
        .arg("--config")
        .arg(dir.join("config"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Emulator(child), digest.as_ref().try_into().unwrap())
}

#[tokio::test]
async fn a_machine_of_sushy_tools_is_found_switched_and_booted_from_cd() {
    let Some(programs) = programs() else { return };
    let _already = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago, because the emulator does not accept port 0.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_emulator, pin) = start(&programs, dir.path(), port);
    let endpoint = Endpoint {
        url: Url::parse(&format!("https://127.0.0.1:{port}")).unwrap(),
        username: "u".into(),
        password: Secret::new("p".into()),
        trust: Trust::Pin(pin),
        profile: None,
    };
    let begun = Instant::now();
    let budgets = Budgets { retries: START_MAX, ..Budgets::default() };
    let bmc = Bmc::connect(&endpoint, budgets).await.unwrap();
    assert!(begun.elapsed() < START_MAX);
    let machine = bmc
        .machine(Some(Wanted {
            name: SERIAL,
            is_it: |told, name| told.serial == name,
            may_be: |told, _name| told.serial.is_empty(),
        }))
        .await
        .unwrap();
    assert_eq!((machine.profile.name().as_str(), machine.power), ("sushy-tools", Power::Off));
    assert!(machine.slots.iter().any(redfish::Slot::takes_cd), "{:?}", machine.slots);
    bmc.set_boot_once_cd(&machine).await.unwrap();
    bmc.power_on(&machine).await.unwrap();
    assert_eq!(bmc.read_again(&machine).await.unwrap().power, Power::On);
    bmc.power_off(&machine, Shutdown::Forced).await.unwrap();
    bmc.clear_boot_override(&machine).await.unwrap();
    bmc.close().await;
}
