// SPDX-License-Identifier: AGPL-3.0-or-later
//! One visit to a BMC: lock, session, discovery, work, end of the session. The work itself is not here.

use redfish::{Bmc, Machine, Slot};

use crate::bmc::locks::Turn;
use crate::bmc::session::{Purpose, Session};
use crate::bmc::unavailable::Unavailable;
use crate::bmc::{Bmcs, OnEnd, identity};
use crate::failure::{Failed, chain};
use crate::store::{JobRow, ServerRow};

/// A session with the machine of a job.
pub struct Visit {
    pub session: Session,
    /// The machine as it was when the visit began; its slots as they were when the session began.
    pub machine: Machine,
    server: ServerRow,
    is_first: bool,
    _turn: Turn,
}

impl Visit {
    /// Begins a visit for an action of a job.
    pub async fn begin(bmcs: &Bmcs, job: &JobRow, on_end: OnEnd) -> Result<Visit, Failed> {
        const STEP: &str = "redfish.discover";
        let server = bmcs.store.server(&job.server_serial).await;
        let server = server.map_err(|error| Failed::by_store(STEP, &error))?;
        let failed = |closed: Unavailable| closed.failed(&bmcs.locks, &server, STEP);
        let turn = bmcs.locks.enter(&server.bmc_url).await;
        if let Some((session, machine)) = go_on(bmcs, &server, &job.id, on_end.clone()).await {
            return Ok(Visit { session, machine, server, is_first: false, _turn: turn });
        }
        let session = Session::open(bmcs, &server, Purpose::Job(on_end)).await.map_err(failed)?;
        let machine = session.machine(bmcs, &server).await.map_err(failed)?;
        Ok(Visit { session, machine, server, is_first: true, _turn: turn })
    }

    /// Begins a visit that is not for a job.
    pub async fn of_server(
        bmcs: &Bmcs,
        serial: &str,
        purpose: Purpose,
    ) -> Result<Visit, Unavailable> {
        let server = bmcs.store.server(serial).await?;
        let turn = bmcs.locks.enter(&server.bmc_url).await;
        let session = Session::open(bmcs, &server, purpose.clone()).await?;
        let machine = match purpose {
            Purpose::Glance => session.bmc().machine(Some(identity::wanted(serial))).await?,
            Purpose::Look | Purpose::Job(_) => session.machine(bmcs, &server).await?,
        };
        Ok(Visit { session, machine, server, is_first: true, _turn: turn })
    }

    pub fn bmc(&self) -> &Bmc {
        self.session.bmc()
    }

    /// The slots as they are now.
    pub async fn slots(&self) -> Result<Vec<Slot>, redfish::Error> {
        if self.is_first {
            return Ok(self.machine.slots.clone());
        }
        self.bmc().slots_again(&self.machine, identity::wanted(&self.server.serial)).await
    }

    /// Ends the session and returns the result of the work.
    pub async fn end<T>(self, result: Result<T, Failed>) -> Result<T, Failed> {
        self.went(&result);
        self.session.close().await;
        result
    }

    /// After successful work no request is outstanding: each was read back.
    fn went<T>(&self, result: &Result<T, Failed>) {
        if result.is_ok() {
            self.bmc().settled();
        }
    }

    /// Returns the result of the work. After successful work the session is cached for the job's next action. After a
    /// failure it is ended: the cause may be the session, or what is known of the BMC.
    pub async fn pause<T>(mut self, bmcs: &Bmcs, result: Result<T, Failed>) -> Result<T, Failed> {
        if result.is_err() {
            return self.end(result).await;
        }
        self.went(&result);
        self.bmc().forget_seen();
        self.session.is_kept = true;
        bmcs.sessions.keep(self.server, self.session.shared(), self.machine);
        result
    }
}

/// Takes the session of the last visit from the cache, if there is one and its machine is still the same.
async fn go_on(
    bmcs: &Bmcs,
    server: &ServerRow,
    job_id: &str,
    on_end: OnEnd,
) -> Option<(Session, Machine)> {
    // Read again: the server may have changed while this visit waited for the lock.
    let server = bmcs.store.server(&server.serial).await.ok()?;
    let open = bmcs.sessions.take(&server.bmc_url)?;
    let is_good = open.is_of(&server) && server.login_refused_at.is_none();
    let session = Session::of(bmcs, server, open.bmc, Purpose::Job(on_end));
    if !is_good {
        session.close().await;
        return None;
    }
    match session.bmc().recognize(&open.machine).await {
        Ok(machine) => Some((session, machine)),
        Err(error) => {
            tracing::debug!(job_id, error = chain(&error), "a session is opened anew");
            session.close().await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::App;
    use crate::store;
    use crate::tests::bmc::{Bmc, Play};
    use crate::tests::{temp_dir, with_job};

    async fn begin(app: &App, job: &JobRow) -> Result<Visit, Failed> {
        Visit::begin(&app.bmcs, job, app.jobs.on_session_end(&job.id)).await
    }

    #[tokio::test]
    async fn a_database_that_fails_is_asked_again_and_a_server_that_is_gone_is_not() {
        let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
        let (app, job) = with_job(dir.path(), &bmc).await;
        let lost = JobRow { server_serial: "SN2".into(), ..job.clone() };
        let failed = begin(&app, &lost).await.err().unwrap();
        assert!(!failed.is_transient, "{failed:?}");
        let raw = rusqlite::Connection::open(app.settings.data_dir.join(store::FILE)).unwrap();
        raw.execute_batch("ALTER TABLE servers RENAME TO hidden").unwrap();
        let failed = begin(&app, &job).await.err().unwrap();
        assert!(failed.is_transient, "{failed:?}");
        assert!(failed.failure.reason.starts_with("database: no such table"), "{failed:?}");
    }

    #[tokio::test]
    async fn a_session_is_kept_for_the_next_visit_with_the_same_credentials() {
        let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Succeed).await);
        let (app, job) = with_job(dir.path(), &bmc).await;
        let logins = || bmc.seen.lock().unwrap().logins;
        for _ in 0..2 {
            let visit = begin(&app, &job).await.unwrap();
            visit.pause(&app.bmcs, Ok(())).await.unwrap();
            assert_eq!(logins(), 1);
        }
        // Raw SQL, because the store refuses this change while a job is open.
        let raw = rusqlite::Connection::open(app.settings.data_dir.join(store::FILE)).unwrap();
        raw.execute_batch("UPDATE servers SET bmc_username = 'other'").unwrap();
        let visit = begin(&app, &job).await.unwrap();
        assert_eq!(logins(), 2, "other credentials");
        assert_eq!(bmc.seen.lock().unwrap().sessions_open, 1, "the former session is ended");
        let failed = Failed::new("redfish.reset", "as a BMC might".into(), true);
        visit.pause(&app.bmcs, Err::<(), _>(failed)).await.unwrap_err();
        begin(&app, &job).await.unwrap().end(Ok(())).await.unwrap();
        assert_eq!(logins(), 3, "after a failure a visit begins anew");
    }

    #[tokio::test]
    async fn a_login_that_is_refused_in_the_middle_of_a_visit_is_the_last() {
        for is_kept in [false, true] {
            let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Succeed).await);
            let (app, job) = with_job(dir.path(), &bmc).await;
            let visit = begin(&app, &job).await.unwrap();
            let visit = if is_kept {
                visit.pause(&app.bmcs, Ok(())).await.unwrap();
                None
            } else {
                Some(visit)
            };
            bmc.seen.lock().unwrap().has_other_password = true;
            if let Some(visit) = visit {
                visit.bmc().firmware().await.unwrap_err();
                visit.bmc().firmware().await.unwrap_err();
                visit.session.close().await;
            }
            for _ in 0..2 {
                let failed = begin(&app, &job).await.err().unwrap();
                assert!(failed.failure.reason.contains("refused the credentials"), "{failed:?}");
                assert_eq!(bmc.seen.lock().unwrap().logins, 2, "kept: {is_kept}");
            }
        }
    }

    #[tokio::test]
    async fn a_kept_session_does_not_lead_to_another_machine() {
        let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Succeed).await);
        let (app, job) = with_job(dir.path(), &bmc).await;
        let mut visit = begin(&app, &job).await.unwrap();
        visit.machine.told.serial = "SN0".into();
        visit.pause(&app.bmcs, Ok(())).await.unwrap();
        let visit = begin(&app, &job).await.unwrap();
        assert_eq!(visit.machine.told.serial, "SN1");
        assert_eq!(bmc.seen.lock().unwrap().logins, 2);
    }
}
