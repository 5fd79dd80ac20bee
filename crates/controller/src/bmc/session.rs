// SPDX-License-Identifier: AGPL-3.0-or-later
//! One session with a BMC: the login and the logout. What is done in between is not here.

use std::sync::Arc;
use std::time::Duration;

use redfish::{Bmc, Budgets, Endpoint, Machine, Trust};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::bmc::locks::Visiting;
use crate::bmc::unavailable::Unavailable;
use crate::bmc::{Bmcs, OnEnd, identity};
use crate::failure::chain;
use crate::store::{self, ServerRow, Store};
use crate::time::{now_ms, timestamp};

/// A session that is ended even if its holder is dropped: a BMC has few sessions. If it is for a job, its transcript
/// goes into the job's evidence. A refusal of the credentials is stored.
pub struct Session {
    bmc: Arc<Bmc>,
    /// The server as it was when the session began.
    server: ServerRow,
    store: Store,
    logouts: TaskTracker,
    on_end: Option<OnEnd>,
    /// The session cache has it, and ends it.
    pub(super) is_kept: bool,
}

/// What a visit is for.
#[derive(Clone)]
pub enum Purpose {
    /// An action of a job, which keeps the transcript.
    Job(OnEnd),
    /// A request of a user.
    Look,
    /// One quick reading: without retries, and its failure does not count as silence of the BMC.
    Glance,
}

impl Purpose {
    fn is_glance(&self) -> bool {
        matches!(self, Purpose::Glance)
    }
}

impl Session {
    /// Logs in to the server's BMC. The caller holds its lock. Credentials that were refused once are not sent again,
    /// and a BMC that does not respond is left alone for a while.
    pub async fn open(
        bmcs: &Bmcs,
        server: &ServerRow,
        purpose: Purpose,
    ) -> Result<Session, Unavailable> {
        // Read again: the credentials may have been refused in the visit before.
        let server = bmcs.store.server(&server.serial).await?;
        if let Some(at) = server.login_refused_at {
            return Err(Unavailable::Refused(timestamp(at)));
        }
        let endpoint = endpoint(bmcs, &server).map_err(Unavailable::Unusable)?;
        let budgets = match bmcs.locks.visiting(&server.bmc_url, Instant::now()) {
            Visiting::Fully if !purpose.is_glance() => bmcs.settings.redfish_budgets(),
            Visiting::Fully | Visiting::Briefly => {
                Budgets { retries: Duration::ZERO, ..bmcs.settings.redfish_budgets() }
            }
            Visiting::Not(rest) => return Err(Unavailable::Resting(rest)),
        };
        match Bmc::connect(&endpoint, budgets).await {
            Ok(bmc) => {
                bmcs.locks.answered(&server.bmc_url);
                Ok(Session::of(bmcs, server, Arc::new(bmc), purpose))
            }
            Err(error) => {
                let is_silence = matches!(error, redfish::Error::Unreachable { .. });
                if !(is_silence && purpose.is_glance()) {
                    heed(bmcs, &server, &error).await?;
                }
                Err(error.into())
            }
        }
    }

    pub(super) fn of(bmcs: &Bmcs, server: ServerRow, bmc: Arc<Bmc>, purpose: Purpose) -> Session {
        let on_end = match purpose {
            Purpose::Job(on_end) => Some(on_end),
            Purpose::Look | Purpose::Glance => None,
        };
        let (store, logouts) = (bmcs.store.clone(), bmcs.logouts.clone());
        Session { bmc, server, store, logouts, on_end, is_kept: false }
    }

    pub fn bmc(&self) -> &Bmc {
        &self.bmc
    }

    pub(super) fn shared(&self) -> Arc<Bmc> {
        self.bmc.clone()
    }

    /// Ends the session. If the credentials were refused in it, that is stored for the next visit.
    pub async fn close(&self) {
        end(&self.bmc, &self.server, &self.store).await;
    }

    /// Finds the machine of the server. It must have the server's name.
    pub async fn machine(&self, bmcs: &Bmcs, server: &ServerRow) -> Result<Machine, Unavailable> {
        match self.bmc.machine(Some(identity::wanted(&server.serial))).await {
            Ok(mut machine) => {
                machine.boot_place = bmcs.boot_places.of(&server.serial);
                Ok(machine)
            }
            Err(error) => {
                heed(bmcs, server, &error).await?;
                Err(error.into())
            }
        }
    }
}

/// Records for later visits what an error says about the BMC. With Basic authentication, credentials are refused only
/// after the login.
async fn heed(bmcs: &Bmcs, server: &ServerRow, error: &redfish::Error) -> Result<(), store::Error> {
    match error {
        redfish::Error::Unreachable { .. } => {
            bmcs.locks.was_silent(&server.bmc_url, Instant::now());
            Ok(())
        }
        redfish::Error::Unauthorized { .. } => bmcs.store.login_refused(server, now_ms()).await,
        _ => {
            bmcs.locks.answered(&server.bmc_url);
            Ok(())
        }
    }
}

impl Drop for Session {
    /// A worker that is stopped is dropped where it waits, so the session is ended here. A second close does nothing.
    fn drop(&mut self) {
        if let Some(on_end) = &self.on_end {
            on_end(&self.bmc);
        }
        if self.is_kept {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (bmc, server, store) = (self.bmc.clone(), self.server.clone(), self.store.clone());
        self.logouts.spawn_on(async move { end(&bmc, &server, &store).await }, &runtime);
    }
}

async fn end(bmc: &Bmc, server: &ServerRow, store: &Store) {
    if bmc.is_refused()
        && let Err(error) = store.login_refused(server, now_ms()).await
    {
        let serial = &server.serial;
        tracing::error!(serial, error = chain(&error), "cannot note that a BMC refused its login");
    }
    bmc.close().await;
}

/// The endpoint of a server's BMC, with the password unsealed.
fn endpoint(bmcs: &Bmcs, server: &ServerRow) -> anyhow::Result<Endpoint> {
    let password = bmcs.keys.root.open(&server.serial, &server.bmc_url, &server.bmc_password)?;
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
    let profile = match &server.bmc_profile {
        Some(name) => Some(redfish::profile(name).ok_or_else(|| {
            anyhow::anyhow!(
                "this version knows no BMC profile {name:?}; set server {}",
                server.serial
            )
        })?),
        None => None,
    };
    Ok(Endpoint {
        profile,
        url: Url::parse(&server.bmc_url)?,
        username: server.bmc_username.clone(),
        password: password.into(),
        trust,
    })
}
