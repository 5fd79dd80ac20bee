// SPDX-License-Identifier: AGPL-3.0-or-later
//! One visit to a BMC: session, discovery, work, session closed. What is done there is not here.

use std::ops::Deref;
use std::sync::Arc;

use redfish::{Bmc, Endpoint, Machine, Secret, Trust};
use tokio_util::task::TaskTracker;
use url::Url;

use crate::App;
use crate::lanes::Turn;
use crate::performer::Failed;
use crate::store::{JobRow, ServerRow};

/// A login that is ended however its holder ends: a BMC has few sessions.
pub struct Session {
    bmc: Arc<Bmc>,
    logouts: TaskTracker,
}

/// A session with the machine of a job.
pub struct Visit {
    pub bmc: Session,
    pub machine: Machine,
    _turn: Turn,
}

impl Session {
    pub async fn open(app: &App, endpoint: &Endpoint) -> Result<Session, redfish::Error> {
        let bmc = Bmc::connect(endpoint, app.settings.redfish_budgets()).await?;
        Ok(Session { bmc: Arc::new(bmc), logouts: app.logouts.clone() })
    }
}

impl Deref for Session {
    type Target = Bmc;

    fn deref(&self) -> &Bmc {
        &self.bmc
    }
}

impl Drop for Session {
    /// A worker that is stopped is dropped where it waits. A second close does nothing.
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let bmc = self.bmc.clone();
        self.logouts.spawn_on(async move { bmc.close().await }, &runtime);
    }
}

impl Visit {
    pub async fn begin(app: &App, job: &JobRow) -> Result<Visit, Failed> {
        const STEP: &str = "redfish.discover";
        let server = app.store.server(&job.server_serial).await;
        let server = server.map_err(|error| Failed::new(STEP, error.to_string(), false))?;
        let endpoint = endpoint(app, &server);
        let endpoint = endpoint.map_err(|error| Failed::new(STEP, format!("{error:#}"), false))?;
        let failed = |error| Failed::by_bmc(STEP, &error);
        let turn = app.lanes.enter(&server.bmc_url).await;
        let bmc = Session::open(app, &endpoint).await.map_err(failed)?;
        let machine = bmc.machine(Some(&job.server_serial)).await.map_err(failed)?;
        Ok(Visit { bmc, machine, _turn: turn })
    }

    /// Ends the session and hands on what came of the work.
    pub async fn end<T>(self, result: Result<T, Failed>) -> Result<T, Failed> {
        self.bmc.close().await;
        result
    }
}

/// The endpoint of a server, with its password opened.
pub fn endpoint(app: &App, server: &ServerRow) -> anyhow::Result<Endpoint> {
    let password = app.keys.open_sealed(&server.serial, &server.bmc_url, &server.bmc_password)?;
    let trust = match (&server.bmc_ca_pem, &server.bmc_pin) {
        (Some(pem), _) => Trust::Ca(pem.clone().into_bytes()),
        (None, Some(pin)) => Trust::Pin(
            hex::decode(pin)?
                .try_into()
                .map_err(|_| anyhow::anyhow!("a stored pin is not 32 bytes"))?,
        ),
        (None, None) => {
            anyhow::bail!("server {} has neither pin nor CA; set it again", server.serial)
        }
    };
    Ok(Endpoint {
        url: Url::parse(&server.bmc_url)?,
        username: server.bmc_username.clone(),
        password: Secret::new(password),
        trust,
    })
}
