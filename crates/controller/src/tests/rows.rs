// SPDX-License-Identifier: AGPL-3.0-or-later
//! Rows for tests: a server, a job, and the events of a job until its machine boots.

use api::node::{DiskIdentity, Dmi, PermitRequest};
use futures_util::FutureExt;
use job::{Action, Event};
use redfish::{BootOverride, BootSettings};

use super::{linux_recipe, session_token};
use crate::as_found::Found;
use crate::store::{Boot, BootSession, NewAuditEntry, NewJobRow, ServerRow};
use crate::time::now_ms;

/// A server whose BMC does not respond.
pub fn server(serial: &str) -> ServerRow {
    ServerRow {
        serial: serial.into(),
        bmc_url: "https://127.0.0.1:1".into(),
        bmc_username: "u".into(),
        bmc_password: Vec::new(),
        bmc_pin: None,
        bmc_ca_pem: None,
        bmc_profile: None,
        ignores_uuid: false,
        login_refused_at: None,
        created_at: 0,
        updated_at: 0,
        active_job: None,
    }
}

/// A job whose attempt has no token.
pub fn job(id: &str, server_serial: &str, attempt: &str) -> NewJobRow {
    NewJobRow {
        id: id.into(),
        server_serial: server_serial.into(),
        attempt: attempt.into(),
        recipe: linux_recipe().to_string(),
        task_target: "install-linux.target".into(),
        artifact_digest: None,
        token_hash: Vec::new(),
        idempotency: None,
        ejects_foreign: false,
        now: now_ms(),
    }
}

/// The events of a job until its machine is awaited.
pub fn until_awaited() -> [Event; 4] {
    [Action::Start, Action::BuildTaskMedium, Action::InsertMedia, Action::BootMaintenance]
        .map(Event::Done)
}

/// A boot that says hello, with the session of [`session_token`].
pub fn boot(boot_id: &str) -> Boot {
    Boot {
        boot_id: boot_id.into(),
        session_hash: crate::keys::sha256(session_token(boot_id).as_bytes()),
        names: recipe::machine::Names::default(),
        who: format!("192.0.2.1 (boot {boot_id})"),
        message: "hello".into(),
    }
}

/// The boot of that hello.
pub fn boot_session(attempt: &str, boot_id: &str) -> BootSession {
    BootSession { attempt: attempt.into(), session_hash: boot(boot_id).session_hash }
}

/// The request of boot `b1` of a machine for a permit to write its only disk.
pub fn permit(serial: &str) -> PermitRequest {
    PermitRequest {
        boot_id: "b1".into(),
        dmi: Dmi { serial: serial.into(), ..Dmi::default() },
        disk: DiskIdentity {
            name: "vda".into(),
            serial: None,
            wwn: None,
            model: None,
            size_bytes: 1 << 30,
        },
        found: Vec::new(),
    }
}

/// What a job finds at a machine that is on and has no boot override.
pub fn found() -> Found {
    let boot = BootSettings { now: BootOverride::none(Some("UEFI")), pending: None };
    Found { is_off: false, boot, is_media_off: false }
}

/// In a database in memory everything is ready at the first poll.
pub fn at_once<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("the store in memory never waits")
}

/// The audit entry of a request for a new job.
pub fn entry(status: u16) -> NewAuditEntry {
    NewAuditEntry {
        who: "ann".into(),
        role: "admin",
        method: "POST".into(),
        route: "/api/v1/jobs".into(),
        target: String::new(),
        from: None,
        status,
    }
}
