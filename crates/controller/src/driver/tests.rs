// SPDX-License-Identifier: AGPL-3.0-or-later
use super::*;
use crate::tests::bmc::{Bmc, Play};
use crate::tests::rows::{self, at_once};
use crate::tests::{temp_dir, with_job};

#[tokio::test]
async fn a_change_stops_the_worker_of_an_earlier_claim_and_no_other() {
    let (dir, bmc) = (temp_dir(), Bmc::start("SN1", Play::Dead).await);
    let (_app, job) = with_job(dir.path(), &bmc).await;
    for (epoch_of_worker, is_stopped) in [(4, true), (5, false), (6, false)] {
        let handle = Handle::default();
        let busy = handle.begin("j1", epoch_of_worker);
        handle.changed(&JobRow { epoch: 5, ..job.clone() });
        let stopped = busy.stop.notified().now_or_never().is_some();
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
    // What another try cannot help is given up at the first, and a BMC's wish is kept.
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
    work(&app, claim).await;
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
    // A time that is set already stays.
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
    let handle = Handle::default();
    let busy = handle.begin("j1", 1);
    let worker = tokio::spawn(async move {
        let _busy = busy;
        panic!("as a worker might");
    });
    assert!(worker.await.unwrap_err().is_panic());
    assert!(!handle.is_busy("j1"));
}
