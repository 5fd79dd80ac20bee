// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of claims, workers and watches of jobs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use job::{Action, Event, Stage, State};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::after_failure::{Next, after_failure};
use super::claim::work;
use super::watch::clock::follow_first;
use super::watch::lost_boot::still_watched;
use super::watch::overdue::fail_overdue;
use super::workers::{Workers, in_place};
use crate::clock::Readings;
use crate::failure::Failed;
use crate::store::JobRow;
use crate::tests::bmc::{Bmc, Play};
use crate::tests::rows::{self, at_once};
use crate::tests::{temp_dir, with_job};
use crate::time::now_ms;

#[tokio::test]
async fn a_change_stops_the_worker_of_an_earlier_claim_and_no_other() {
    let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
    let (_app, job) = with_job(dir.path(), &bmc).await;
    for (epoch_of_worker, is_stopped) in [(4, true), (5, false), (6, false)] {
        let workers = Workers::default();
        let busy = workers.begin("j1", epoch_of_worker);
        workers.changed(&JobRow { epoch: 5, ..job.clone() });
        let stopped = busy.stopped().now_or_never().is_some();
        assert_eq!(stopped, is_stopped, "a worker of epoch {epoch_of_worker}");
    }
}

#[test]
fn a_failed_try_is_repeated_as_long_as_that_may_help_and_then_given_up() {
    let store = crate::store::Store::in_memory().unwrap();
    at_once(store.put_server(rows::server("SN1"))).unwrap();
    let new = crate::store::NewJobRow { now: 0, ..rows::job("j1", "SN1", "a1") };
    at_once(store.create_job(new)).unwrap();
    let failed = |is_transient| Failed::new("some.step", "why".into(), is_transient);
    let (mut now, mut tries) = (0, 0);
    let given_up = loop {
        let claim = at_once(store.claim(now, |_id| false, 1)).unwrap().remove(0);
        tries += 1;
        match after_failure(&claim.job, claim.action, failed(true), 0) {
            Next::Again { why, pause } => {
                assert_eq!(why, "some.step: why");
                now += i64::try_from(pause.as_millis()).unwrap();
                at_once(store.retry("j1", claim.job.epoch, why, now, now)).unwrap();
                assert!(at_once(store.claim(now - 1, |_id| false, 1)).unwrap().is_empty());
            }
            Next::GiveUp { event, message } => break (claim.job, event, message),
        }
    };
    assert_eq!(tries, job::tries_max(Action::Start));
    let failure = failed(true).failure;
    assert_eq!(given_up.1, Event::GaveUp(Action::Start, failure.clone()));
    let (job, event, message) = given_up;
    at_once(store.apply("j1", Some(job.epoch), event, message, now)).unwrap();
    let state = at_once(store.job("j1")).unwrap().state;
    assert_eq!(state.outcome(), Some(&job::Outcome::Failed(failure)));
    // A failure that another try cannot help is given up at the first, and a BMC's `Retry-After` is respected.
    let first = JobRow { tries: 0, ..job };
    let hopeless = after_failure(&first, Action::Start, failed(false), 0);
    assert!(matches!(hopeless, Next::GiveUp { .. }), "{hopeless:?}");
    let wish = Duration::from_secs(100);
    let busy = Failed { retry_after: Some(wish), ..failed(true) };
    let again = after_failure(&first, Action::Start, busy, 0);
    assert!(matches!(&again, Next::Again { pause, .. } if *pause == wish), "{again:?}");
}

#[tokio::test]
async fn a_worker_whose_job_moved_before_it_began_touches_nothing() {
    let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
    let (app, _job) = with_job(dir.path(), &bmc).await;
    for done in [Action::Start, Action::BuildTaskMedium] {
        app.store.apply("j1", None, Event::Done(done), String::new(), now_ms()).await.unwrap();
    }
    let claim = app.store.claim(now_ms(), |_id| false, 1).await.unwrap().remove(0);
    assert_eq!(claim.action, Action::InsertMedia);
    app.store.apply("j1", None, Event::Cancelled, String::new(), now_ms()).await.unwrap();
    work(&app.jobs, claim).await;
    assert_eq!(bmc.story(), Vec::<String>::new());
    assert_eq!(app.store.job("j1").await.unwrap().state.stage_name(), "ejecting_media");
}

#[tokio::test]
async fn a_claim_without_an_end_is_due_again_and_an_overtaken_one_changes_nothing() {
    let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
    let (app, _job) = with_job(dir.path(), &bmc).await;
    let claim = app.store.claim(now_ms(), |_id| false, 1).await.unwrap().remove(0);
    let epoch = claim.job.epoch;
    assert_eq!(app.store.next_due().await.unwrap(), None);
    app.store.give_back("j1", epoch - 1, 7).await.unwrap();
    assert_eq!(app.store.next_due().await.unwrap(), None);
    app.store.give_back("j1", epoch, 7).await.unwrap();
    assert_eq!(app.store.next_due().await.unwrap(), Some(7));
    // A time that is already set is not changed.
    app.store.give_back("j1", epoch, 9).await.unwrap();
    assert_eq!(app.store.next_due().await.unwrap(), Some(7));
}

#[tokio::test]
async fn an_action_that_takes_long_gives_its_place_to_others() {
    let places = || Arc::new(Semaphore::new(1));
    let (quick, slow) = (places(), places());
    let at_once = Duration::from_millis(1);
    let hang = async |slow: &Arc<Semaphore>| {
        let place = quick.clone().acquire_owned().await.unwrap();
        let work = in_place(std::future::pending::<()>(), place, slow.clone(), at_once);
        tokio::spawn(work).abort_handle()
    };
    let first = hang(&slow).await;
    let second = tokio::time::timeout(crate::tests::DEADLINE, hang(&slow)).await.unwrap();
    assert_eq!(slow.available_permits(), 0);
    // There is no second slow place until the first one is left.
    assert_eq!(quick.available_permits(), 0);
    first.abort();
    let free = tokio::time::timeout(crate::tests::DEADLINE, quick.acquire()).await;
    assert!(free.unwrap().is_ok());
    second.abort();
}

#[tokio::test]
async fn a_worker_that_panics_leaves_its_job_free() {
    let workers = Workers::default();
    let busy = workers.begin("j1", 1);
    let worker = tokio::spawn(async move {
        let _busy = busy;
        panic!("as a worker might");
    });
    assert!(worker.await.unwrap_err().is_panic());
    assert!(!workers.is_busy("j1"));
}

#[tokio::test]
async fn a_boot_that_nobody_could_serve_during_a_suspend_is_begun_again_and_not_failed() {
    let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
    let (app, _job) = with_job(dir.path(), &bmc).await;
    for event in rows::until_awaited() {
        app.store.apply("j1", None, event, String::new(), now_ms()).await.unwrap();
    }
    let watched = app.store.jobs_awaiting_machine().await.unwrap();
    let ago = |secs| Instant::now() - Duration::from_secs(secs);
    let still = still_watched(&app.jobs, watched.clone(), ago(100)).await;
    assert_eq!(still.len(), 1, "it has listened for 100 s");
    assert!(still_watched(&app.jobs, watched, ago(181)).await.is_empty());
    let state = app.store.job("j1").await.unwrap().state;
    assert_eq!(state, State::Provisioning(Stage::ReinsertingMedia));
}

#[tokio::test]
async fn a_job_is_overdue_only_after_silence_that_was_listened_to() {
    let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
    let (app, _job) = with_job(dir.path(), &bmc).await;
    let now = now_ms();
    for event in rows::until_awaited() {
        app.store.apply("j1", None, event, String::new(), now).await.unwrap();
    }
    app.store.hello("a1", rows::boot("b1"), now).await.unwrap().unwrap();
    app.store
        .permit(rows::boot_session("a1", "b1"), rows::permit("SN1"), now)
        .await
        .unwrap()
        .unwrap();
    // Suspended for a day: the clock reports that before overdue jobs are searched.
    let day = Duration::from_secs(24 * 3600);
    let real = Readings::now();
    let after = |listened: Duration| Readings {
        wall_ms: real.wall_ms + i64::try_from((day + listened).as_millis()).unwrap(),
        boot: real.boot + day + listened,
        at: real.at + listened,
    };
    let mut failed_after = None;
    for minutes in 0..70 {
        let readings = after(Duration::from_secs(minutes * 60 + 1));
        if minutes > 0 {
            app.jobs.clock.listened_until(readings);
        }
        while follow_first(&app.jobs.clock, &app.store, readings).await.unwrap().is_some() {}
        fail_overdue(&app.jobs, readings.wall_ms).await.unwrap();
        if app.store.job("j1").await.unwrap().state.outcome().is_some() {
            failed_after = Some(minutes);
            break;
        }
    }
    assert_eq!(failed_after, Some(60));
    let Some(job::Outcome::Failed(why)) =
        app.store.job("j1").await.unwrap().state.outcome().cloned()
    else {
        panic!("it did not fail")
    };
    assert_eq!(
        why.reason,
        "the machine got its permit, and then nothing was heard of it in 60 min in which the controller \
         listened; its disk may be half written"
    );
    let events = app.store.events("j1", 0, 100).await.unwrap();
    let told: Vec<_> = events.iter().filter(|event| event.kind == "clock").collect();
    assert!(told.len() == 1 && told[0].message.contains("was suspended from"), "{told:?}");
}
