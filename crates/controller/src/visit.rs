// SPDX-License-Identifier: AGPL-3.0-or-later
//! One visit to a BMC: session, discovery, work, session closed. What is done there is not here.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use redfish::{Bmc, Budgets, Endpoint, Machine, Slot, Trust};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::evidence::Evidence;
use crate::lanes::{Turn, Visiting};
use crate::performer::{Failed, chain};
use crate::store::{self, JobRow, ServerRow, Store};
use crate::{App, driver, identity, now_ms, timestamp};

/// Of a failed job's evidence: what was said to its BMC.
const TRANSCRIPT: &str = "redfish.jsonl";
/// Of a failed job's evidence: what its BMC logged since it began.
const BMC_LOG: &str = "bmc-log.jsonl";
/// Longest time that reading a log may take: it must not hold up the cleaning up.
const BMC_LOG_MAX: Duration = Duration::from_secs(60);

/// A login that is ended however its holder ends: a BMC has few sessions. What was said goes into the
/// evidence of the job, if it is for one. That the credentials were refused is kept in mind.
pub struct Session {
    bmc: Arc<Bmc>,
    /// As it was when the session began.
    server: ServerRow,
    store: Store,
    logouts: TaskTracker,
    job: Option<ForJob>,
    /// Somebody else ends it.
    is_kept: bool,
}

/// The job that a session is for.
struct ForJob {
    id: String,
    evidence: Arc<Evidence>,
    driver: driver::Handle,
}

/// What a visit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// An action of this job, which keeps what was said.
    Job(&'a str),
    /// Somebody asks.
    Look,
    /// To see something in passing: not worth patience, and no sign of the BMC's health.
    Glance,
}

/// A session with the machine of a job.
pub struct Visit {
    pub bmc: Session,
    /// As it was when the visit began; its slots as they were when the session began.
    pub machine: Machine,
    server: ServerRow,
    is_first: bool,
    _turn: Turn,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error(transparent)]
    Bmc(#[from] redfish::Error),
    #[error(
        "the BMC refused the credentials at {0}; so that no account is locked, they are not sent \
         again until they are set anew with `shoal server set`"
    )]
    Refused(Timestamp),
    #[error("the BMC did not answer several times; it is asked again in {} s", .0.as_secs())]
    Resting(Duration),
    #[error("job {0} is active on this server; wait for its end or cancel it")]
    Busy(String),
    /// A change by hand that the BMC put off each time.
    #[error("tried {tries} times in {} s", .waited.as_secs())]
    Tried {
        tries: u32,
        waited: Duration,
        #[source]
        error: redfish::Error,
    },
    #[error("the firmware of this server is being updated; wait for its end")]
    Updating,
    /// With what is stored of the BMC it cannot be asked.
    #[error("{0:#}")]
    Unusable(anyhow::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Closed {
    fn failed(&self, app: &App, server: &ServerRow, step: &str) -> Failed {
        match self {
            Closed::Bmc(error) => {
                let failed = Failed::by_bmc(step, error);
                // A BMC that is left alone now is not worth a try before.
                let rest = match app.lanes.visiting(&server.bmc_url, Instant::now()) {
                    Visiting::Not(rest) => Some(rest),
                    Visiting::Fully | Visiting::Briefly => None,
                };
                Failed { retry_after: failed.retry_after.max(rest), ..failed }
            }
            Closed::Resting(rest) => {
                let failed = Failed::new(step, chain(self), true);
                Failed { retry_after: Some(*rest), ..failed }
            }
            Closed::Store(error) => Failed::by_store(step, error),
            Closed::Refused(_)
            | Closed::Busy(_)
            | Closed::Tried { .. }
            | Closed::Updating
            | Closed::Unusable(_)
            | Closed::Other(_) => Failed::new(step, chain(self), false),
        }
    }
}

impl Session {
    /// Logs in to the server's BMC, with its turn in hand. Credentials that were refused once are not
    /// sent, and a BMC that does not answer is left alone for a while.
    pub async fn open(
        app: &App,
        server: &ServerRow,
        purpose: Purpose<'_>,
    ) -> Result<Session, Closed> {
        // Read again: the visit before may have met a refusal.
        let server = app.store.server(&server.serial).await?;
        if let Some(at) = server.login_refused_at {
            return Err(Closed::Refused(timestamp(at)));
        }
        let endpoint = endpoint(app, &server).map_err(Closed::Unusable)?;
        let budgets = match app.lanes.visiting(&server.bmc_url, Instant::now()) {
            Visiting::Fully if purpose != Purpose::Glance => app.settings.redfish_budgets(),
            Visiting::Fully | Visiting::Briefly => {
                Budgets { retries: Duration::ZERO, ..app.settings.redfish_budgets() }
            }
            Visiting::Not(rest) => return Err(Closed::Resting(rest)),
        };
        match Bmc::connect(&endpoint, budgets).await {
            Ok(bmc) => {
                app.lanes.answered(&server.bmc_url);
                Ok(Session::of(app, server, Arc::new(bmc), purpose))
            }
            Err(error) => {
                let is_silence = matches!(error, redfish::Error::Unreachable { .. });
                if !(is_silence && purpose == Purpose::Glance) {
                    heed(app, &server, &error).await?;
                }
                Err(error.into())
            }
        }
    }

    fn of(app: &App, server: ServerRow, bmc: Arc<Bmc>, purpose: Purpose<'_>) -> Session {
        let job = match purpose {
            Purpose::Job(job_id) => Some(ForJob {
                id: job_id.to_owned(),
                evidence: app.evidence.clone(),
                driver: app.driver.clone(),
            }),
            Purpose::Look | Purpose::Glance => None,
        };
        let (store, logouts) = (app.store.clone(), app.logouts.clone());
        Session { bmc, server, store, logouts, job, is_kept: false }
    }

    /// Ends it. The next visit knows of a refusal in this one.
    pub async fn close(&self) {
        end(&self.bmc, &self.server, &self.store).await;
    }

    /// The machine, which must have the server's name.
    pub async fn machine(&self, app: &App, server: &ServerRow) -> Result<Machine, Closed> {
        match self.bmc.machine(Some(identity::wanted(&server.serial))).await {
            Ok(mut machine) => {
                machine.boot_place = app.boot_places.of(&server.serial);
                Ok(machine)
            }
            Err(error) => {
                heed(app, server, &error).await?;
                Err(error.into())
            }
        }
    }
}

/// Keeps in mind what an error says of the BMC for visits to come. Basic credentials are refused only
/// after the login.
async fn heed(app: &App, server: &ServerRow, error: &redfish::Error) -> Result<(), store::Error> {
    match error {
        redfish::Error::Unreachable { .. } => {
            app.lanes.was_silent(&server.bmc_url, Instant::now());
            Ok(())
        }
        redfish::Error::Unauthorized { .. } => app.store.login_refused(server, now_ms()).await,
        _ => {
            app.lanes.answered(&server.bmc_url);
            Ok(())
        }
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
        if let Some(ForJob { id, evidence, driver }) = &self.job {
            evidence.append(id, TRANSCRIPT, self.bmc.transcript());
            if self.bmc.is_unsettled() {
                driver.left_unsettled(id);
            }
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

impl Visit {
    pub async fn begin(app: &App, job: &JobRow) -> Result<Visit, Failed> {
        const STEP: &str = "redfish.discover";
        let server = app.store.server(&job.server_serial).await;
        let server = server.map_err(|error| Failed::by_store(STEP, &error))?;
        let failed = |closed: Closed| closed.failed(app, &server, STEP);
        let turn = app.lanes.enter(&server.bmc_url).await;
        if let Some((bmc, machine)) = go_on(app, &server, &job.id).await {
            return Ok(Visit { bmc, machine, server, is_first: false, _turn: turn });
        }
        let bmc = Session::open(app, &server, Purpose::Job(&job.id)).await.map_err(failed)?;
        let machine = bmc.machine(app, &server).await.map_err(failed)?;
        Ok(Visit { bmc, machine, server, is_first: true, _turn: turn })
    }

    /// For no job.
    pub async fn of_server(app: &App, serial: &str, purpose: Purpose<'_>) -> Result<Visit, Closed> {
        let server = app.store.server(serial).await?;
        let turn = app.lanes.enter(&server.bmc_url).await;
        let bmc = Session::open(app, &server, purpose).await?;
        let machine = match purpose {
            Purpose::Glance => bmc.bmc.machine(Some(identity::wanted(serial))).await?,
            Purpose::Look | Purpose::Job(_) => bmc.machine(app, &server).await?,
        };
        Ok(Visit { bmc, machine, server, is_first: true, _turn: turn })
    }

    /// The slots as they are now.
    pub async fn slots(&self) -> Result<Vec<Slot>, redfish::Error> {
        if self.is_first {
            return Ok(self.machine.slots.clone());
        }
        self.bmc.slots_again(&self.machine, identity::wanted(&self.server.serial)).await
    }

    /// Keeps what the BMC logged since a failed job began. It is evidence: not to get it is told
    /// there and changes nothing.
    pub async fn keep_bmc_log(&self, app: &App, job: &JobRow) {
        if !matches!(job.state.outcome(), Some(job::Outcome::Failed(_))) {
            return;
        }
        let since = timestamp(job.created_at);
        let entries = self.bmc.log_entries(&self.machine, since, Timestamp::now());
        match tokio::time::timeout(BMC_LOG_MAX, entries).await {
            Ok(Ok(entries)) => app.evidence.put(&job.id, BMC_LOG, entries),
            Ok(Err(error)) => {
                let line = serde_json::json!({"not_read": chain(&error)});
                app.evidence.put(&job.id, BMC_LOG, [line]);
            }
            Err(_) => {
                let line = serde_json::json!({"not_read": format!("it took over {BMC_LOG_MAX:?}")});
                app.evidence.put(&job.id, BMC_LOG, [line]);
            }
        }
    }

    /// Ends the session and hands on what came of the work.
    pub async fn end<T>(self, result: Result<T, Failed>) -> Result<T, Failed> {
        self.went(&result);
        self.bmc.close().await;
        result
    }

    /// Work that went well has read back all that it asked for.
    fn went<T>(&self, result: &Result<T, Failed>) {
        if result.is_ok() {
            self.bmc.settled();
        }
    }

    /// Hands on what came of the work. After work that went well the session is kept for the job's
    /// next action; what failed may have its cause in the session, or in what is known of the BMC.
    pub async fn pause<T>(mut self, app: &App, result: Result<T, Failed>) -> Result<T, Failed> {
        if result.is_err() {
            return self.end(result).await;
        }
        self.went(&result);
        self.bmc.forget_seen();
        self.bmc.is_kept = true;
        app.kept.keep(self.server, self.bmc.bmc.clone(), self.machine);
        result
    }
}

/// With the session of the visit before, if there is one and its machine is still the same.
async fn go_on(app: &App, server: &ServerRow, job_id: &str) -> Option<(Session, Machine)> {
    // Read again: it may have changed while the turn was awaited.
    let server = app.store.server(&server.serial).await.ok()?;
    let open = app.kept.take(&server.bmc_url)?;
    let is_good = open.is_of(&server) && server.login_refused_at.is_none();
    let session = Session::of(app, server, open.bmc, Purpose::Job(job_id));
    if !is_good {
        session.close().await;
        return None;
    }
    match session.recognize(&open.machine).await {
        Ok(machine) => Some((session, machine)),
        Err(error) => {
            tracing::debug!(job_id, error = chain(&error), "a session is opened anew");
            session.close().await;
            None
        }
    }
}

/// The endpoint of a server, with its password opened.
fn endpoint(app: &App, server: &ServerRow) -> anyhow::Result<Endpoint> {
    let password = app.keys.root.open(&server.serial, &server.bmc_url, &server.bmc_password)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::bmc::{Bmc, Play};
    use crate::tests::{temp_dir, with_job};

    #[tokio::test]
    async fn a_database_that_fails_is_asked_again_and_a_server_that_is_gone_is_not() {
        let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
        let (app, job) = with_job(dir.path(), &bmc).await;
        let lost = JobRow { server_serial: "SN2".into(), ..job.clone() };
        let failed = Visit::begin(&app, &lost).await.err().unwrap();
        assert!(!failed.is_transient, "{failed:?}");
        let raw = rusqlite::Connection::open(app.settings.data_dir.join(store::FILE)).unwrap();
        raw.execute_batch("ALTER TABLE servers RENAME TO hidden").unwrap();
        let failed = Visit::begin(&app, &job).await.err().unwrap();
        assert!(failed.is_transient, "{failed:?}");
        assert!(failed.failure.reason.starts_with("database: no such table"), "{failed:?}");
    }

    #[tokio::test]
    async fn a_session_is_kept_for_the_next_visit_with_the_same_credentials() {
        let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Succeed).await);
        let (app, job) = with_job(dir.path(), &bmc).await;
        let logins = || bmc.seen.lock().unwrap().logins;
        for _ in 0..2 {
            let visit = Visit::begin(&app, &job).await.unwrap();
            visit.pause(&app, Ok(())).await.unwrap();
            assert_eq!(logins(), 1);
        }
        // The store itself refuses this while a job is open.
        let raw = rusqlite::Connection::open(app.settings.data_dir.join(store::FILE)).unwrap();
        raw.execute_batch("UPDATE servers SET bmc_username = 'other'").unwrap();
        let visit = Visit::begin(&app, &job).await.unwrap();
        assert_eq!(logins(), 2, "other credentials");
        assert_eq!(bmc.seen.lock().unwrap().sessions_open, 1, "the former session is ended");
        let failed = Failed::new("redfish.reset", "as a BMC might".into(), true);
        visit.pause(&app, Err::<(), _>(failed)).await.unwrap_err();
        Visit::begin(&app, &job).await.unwrap().end(Ok(())).await.unwrap();
        assert_eq!(logins(), 3, "after a failure a visit begins anew");
    }

    #[tokio::test]
    async fn a_login_that_is_refused_in_the_middle_of_a_visit_is_the_last() {
        for is_kept in [false, true] {
            let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Succeed).await);
            let (app, job) = with_job(dir.path(), &bmc).await;
            let visit = Visit::begin(&app, &job).await.unwrap();
            let visit = if is_kept {
                visit.pause(&app, Ok(())).await.unwrap();
                None
            } else {
                Some(visit)
            };
            bmc.seen.lock().unwrap().has_other_password = true;
            if let Some(visit) = visit {
                visit.bmc.firmware().await.unwrap_err();
                visit.bmc.firmware().await.unwrap_err();
                visit.bmc.close().await;
            }
            for _ in 0..2 {
                let failed = Visit::begin(&app, &job).await.err().unwrap();
                assert!(failed.failure.reason.contains("refused the credentials"), "{failed:?}");
                assert_eq!(bmc.seen.lock().unwrap().logins, 2, "kept: {is_kept}");
            }
        }
    }

    #[tokio::test]
    async fn a_kept_session_does_not_lead_to_another_machine() {
        let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Succeed).await);
        let (app, job) = with_job(dir.path(), &bmc).await;
        let mut visit = Visit::begin(&app, &job).await.unwrap();
        visit.machine.told.serial = "SN0".into();
        visit.pause(&app, Ok(())).await.unwrap();
        let visit = Visit::begin(&app, &job).await.unwrap();
        assert_eq!(visit.machine.told.serial, "SN1");
        assert_eq!(bmc.seen.lock().unwrap().logins, 2);
    }
}
