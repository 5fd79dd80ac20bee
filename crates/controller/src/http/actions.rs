// SPDX-License-Identifier: AGPL-3.0-or-later
//! `/servers/{serial}/actions`: power and boot actions that a user starts through the BMC, outside of jobs. They are
//! rejected while a job is active, because the job would find the machine in a state that it did not cause.

use std::time::Duration;

use api::servers::{BootAction, BootOnce, PowerAction, PowerSet, ServerState};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use job::Action;
use redfish::{Restart, Shutdown};
use tokio::time::Instant;

use super::app::App;
use super::path::Path;
use super::problem::{Answer, json};
use super::servers::closed;
use crate::bmc::{Purpose, Unavailable, Visit};

/// No new attempt begins after this time, because a user waits for the response.
const PATIENCE_MAX: Duration = Duration::from_secs(5 * 60);

/// The requested change.
#[derive(Debug)]
enum Change {
    Power(PowerSet),
    Boot(BootOnce),
}

pub async fn power(
    State(app): State<App>,
    Path(serial): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<ServerState>> {
    let PowerAction { power } = json(&body?)?;
    change(app, serial, Change::Power(power)).await
}

pub async fn boot(
    State(app): State<App>,
    Path(serial): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<ServerState>> {
    let BootAction { boot } = json(&body?)?;
    change(app, serial, Change::Boot(boot)).await
}

/// Completes the change even if the client disconnects: a half-done action is worse than a complete one.
async fn change(app: App, serial: String, change: Change) -> Answer<Json<ServerState>> {
    let task = tokio::spawn(async move { patiently(&app, &serial, &change).await });
    Ok(Json(task.await.map_err(anyhow::Error::from)?.map_err(closed)?))
}

/// Retries as often as a job's action does, as long as the BMC responds that it cannot do it now: it is busy, or its
/// machine is in POST. A BMC that does not respond is not retried, because the first attempt has waited long enough.
async fn patiently(app: &App, serial: &str, change: &Change) -> Result<ServerState, Unavailable> {
    let begun = Instant::now();
    let mut tries = 1;
    loop {
        let error = match once(app, serial, change).await {
            Err(Unavailable::Bmc(error)) if is_refused_for_now(&error) => error,
            result => return result,
        };
        let pause =
            job::pause(tries, app.keys.random_byte()).max(error.retry_after().unwrap_or_default());
        let (pause, most) = (app.settings.scaled(pause), app.settings.scaled(PATIENCE_MAX));
        if tries == job::tries_max(Action::BootMaintenance) || begun.elapsed() + pause > most {
            return Err(Unavailable::Tried { tries, waited: begun.elapsed(), error });
        }
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

fn is_refused_for_now(error: &redfish::Error) -> bool {
    matches!(error, redfish::Error::Status { .. }) && error.is_transient()
}

async fn once(app: &App, serial: &str, change: &Change) -> Result<ServerState, Unavailable> {
    if app.updates.is_running(serial) {
        return Err(Unavailable::Updating);
    }
    // An active job may hold the BMC's lock for half an hour: reject such a request at once.
    if let Some(job) = app.store.server(serial).await?.active_job {
        return Err(Unavailable::Busy(job));
    }
    let visit = Visit::of_server(&app.bmcs, serial, Purpose::Look).await?;
    // Check again while holding the lock: a job that becomes active from now on waits for the lock.
    if let Some(job) = app.store.server(serial).await?.active_job {
        visit.session.close().await;
        return Err(Unavailable::Busy(job));
    }
    tracing::info!(server_serial = serial, ?change, "changed by hand");
    let done = match make(&visit, change).await {
        Ok(()) => state(&visit).await,
        Err(error) => Err(error),
    };
    visit.session.close().await;
    Ok(done?)
}

async fn make(visit: &Visit, change: &Change) -> Result<(), redfish::Error> {
    let (bmc, machine) = (visit.bmc(), &visit.machine);
    match change {
        Change::Power(PowerSet::On) => bmc.power_on(machine).await,
        Change::Power(PowerSet::Off) => bmc.power_off(machine, Shutdown::Graceful).await,
        Change::Power(PowerSet::ForceOff) => bmc.power_off(machine, Shutdown::Forced).await,
        Change::Power(PowerSet::Restart) => bmc.restart(machine, Restart::Graceful).await,
        Change::Power(PowerSet::Reset) => bmc.restart(machine, Restart::Forced).await,
        Change::Power(PowerSet::Cycle) => bmc.restart(machine, Restart::PowerCycle).await,
        Change::Boot(BootOnce::Cd) => bmc.set_boot_once_cd(machine).await.map(drop),
        Change::Boot(BootOnce::None) => bmc.clear_boot_override(machine).await,
    }
}

/// Reads the state again, after the change.
async fn state(visit: &Visit) -> Result<ServerState, redfish::Error> {
    let machine = visit.bmc().read_again(&visit.machine).await?;
    Ok(ServerState { power: format!("{:?}", machine.power), boot_override: machine.boot_override })
}
