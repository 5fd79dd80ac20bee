// SPDX-License-Identifier: AGPL-3.0-or-later
//! Properties of the table of transitions, checked over every reachable state.

use std::collections::HashSet;

use super::*;
use crate::state::Status;

fn failure(step: &str) -> Failure {
    Failure { step: step.into(), reason: "because".into() }
}

fn all_events() -> Vec<Event> {
    let actions = [
        Action::Start,
        Action::BuildTaskMedium,
        Action::InsertMedia,
        Action::BootMaintenance,
        Action::PowerOff,
        Action::EjectMedia,
        Action::StartMachine,
    ];
    let mut events: Vec<Event> = actions.iter().map(|a| Event::Done(*a)).collect();
    events.extend(actions.iter().map(|a| Event::GaveUp(*a, failure("gave-up"))));
    events.push(Event::Overdue(failure("overdue")));
    events.push(Event::BootLost);
    events.push(Event::Permitted);
    events.push(Event::Reported(Outcome::Succeeded));
    events.push(Event::Reported(Outcome::Failed(failure("partition.service"))));
    events.push(Event::Cancelled);
    events.push(Event::Restored(failure("restore")));
    events
}

/// Every state that can be reached from `Queued`.
fn reachable() -> HashSet<State> {
    let mut seen = HashSet::from([State::Queued]);
    let mut open = vec![State::Queued];
    while let Some(state) = open.pop() {
        for event in all_events() {
            if let Ok(next) = transition(&state, &event)
                && seen.insert(next.clone())
            {
                open.push(next);
            }
        }
    }
    seen
}

#[test]
fn whatever_cannot_be_put_back_is_in_the_problem_each_by_its_name() {
    let failure = |step: &str| Failure { step: step.into(), reason: format!("why {step}") };
    let mut state = State::Closing {
        outcome: Outcome::Succeeded,
        cleanup: Cleanup::PoweringOff,
        problem: None,
    };
    for (action, step) in [
        (Action::PowerOff, "cleanup.reset"),
        (Action::EjectMedia, "cleanup.unmount"),
        (Action::StartMachine, "cleanup.start"),
    ] {
        state = transition(&state, &Event::GaveUp(action, failure(step))).unwrap();
    }
    let reason =
        "why cleanup.reset; cleanup.unmount: why cleanup.unmount; cleanup.start: why cleanup.start";
    let problem = Failure { step: "cleanup.reset".into(), reason: reason.into() };
    let expected = State::Complete { outcome: Outcome::Succeeded, problem: Some(problem) };
    assert_eq!(state, expected);
}

#[test]
fn the_happy_path_passes_each_stage_once() {
    let events = [
        Event::Done(Action::Start),
        Event::Done(Action::BuildTaskMedium),
        Event::Done(Action::InsertMedia),
        Event::Done(Action::BootMaintenance),
        Event::Permitted,
        Event::Reported(Outcome::Succeeded),
        Event::Done(Action::PowerOff),
        Event::Done(Action::EjectMedia),
        Event::Done(Action::StartMachine),
    ];
    let mut state = State::Queued;
    let mut names = vec![state.stage_name()];
    for event in &events {
        state = transition(&state, event).expect("the happy path is in the table");
        names.push(state.stage_name());
    }
    assert_eq!(
        names,
        [
            "queued",
            "building_task_medium",
            "inserting_media",
            "booting_maintenance",
            "awaiting_machine",
            "writing",
            "powering_off",
            "ejecting_media",
            "starting_machine",
            "complete"
        ]
    );
    assert_eq!(state, State::Complete { outcome: Outcome::Succeeded, problem: None });
}

#[test]
fn a_lost_boot_begins_again_with_new_media_until_the_permit() {
    for stage in [Stage::BootingMaintenance, Stage::AwaitingMachine] {
        let mut state = State::Provisioning(stage);
        state = transition(&state, &Event::BootLost).unwrap();
        assert_eq!(state, State::Provisioning(Stage::ReinsertingMedia));
        assert!(transition(&state, &Event::Permitted).is_err());
        state = transition(&state, &Event::Done(Action::InsertMedia)).unwrap();
        assert_eq!(state, State::Provisioning(Stage::BootingMaintenance));
    }
    assert!(transition(&State::Provisioning(Stage::Writing), &Event::BootLost).is_err());
}

#[test]
fn a_restored_job_is_complete_and_asks_for_nothing() {
    for state in reachable().into_iter().filter(|state| !state.is_complete()) {
        let next = transition(&state, &Event::Restored(failure("restore"))).unwrap();
        assert!(next.is_complete(), "{state:?}");
        let outcome = state.outcome().cloned();
        let expected = outcome.unwrap_or(Outcome::Failed(failure("restore")));
        assert_eq!(next.outcome(), Some(&expected), "{state:?}");
    }
}

#[test]
fn complete_is_final_and_an_outcome_never_changes() {
    for state in reachable() {
        for event in all_events() {
            let Ok(next) = transition(&state, &event) else { continue };
            assert!(!state.is_complete(), "{state:?} left by {event:?}");
            if let Some(outcome) = state.outcome() {
                assert_eq!(next.outcome(), Some(outcome), "{state:?} + {event:?}");
            }
        }
    }
}

#[test]
fn status_never_goes_back() {
    for state in reachable() {
        for event in all_events() {
            if let Ok(next) = transition(&state, &event) {
                assert!(next.status() >= state.status(), "{state:?} + {event:?}");
            }
        }
    }
}

#[test]
fn a_permit_is_granted_once_and_success_needs_it() {
    let writing = State::Provisioning(Stage::Writing);
    for state in reachable() {
        if let Ok(next) = transition(&state, &Event::Permitted) {
            assert_ne!(state, writing);
            assert_eq!(next, writing);
            assert_eq!(state.action(), None, "nothing touches a machine that may write");
        }
        if transition(&state, &Event::Reported(Outcome::Succeeded)).is_ok() {
            assert_eq!(state, writing);
        }
    }
    // No transition leads back to a state in which a permit is possible.
    let mut open = vec![writing];
    while let Some(state) = open.pop() {
        for event in all_events() {
            if let Ok(next) = transition(&state, &event) {
                assert!(transition(&next, &Event::Permitted).is_err());
                open.push(next);
            }
        }
    }
}

#[test]
fn a_machine_may_say_that_it_failed_as_soon_as_it_may_run() {
    let reported = Event::Reported(Outcome::Failed(failure("partition.service")));
    for state in reachable() {
        let may_run = [Stage::BootingMaintenance, Stage::AwaitingMachine, Stage::Writing]
            .map(State::Provisioning)
            .contains(&state);
        let next = transition(&state, &reported);
        assert_eq!(next.is_ok(), may_run, "{state:?}");
        if let Ok(next) = next {
            assert_eq!(next.outcome(), Some(&Outcome::Failed(failure("partition.service"))));
        }
    }
}

#[test]
fn news_of_another_action_is_refused() {
    for state in reachable() {
        for event in all_events() {
            if let Event::Done(action) | Event::GaveUp(action, _) = &event
                && transition(&state, &event).is_ok()
            {
                assert_eq!(state.action(), Some(*action), "{state:?} + {event:?}");
            }
        }
    }
}

#[test]
fn cancel_works_until_the_outcome_is_known() {
    for state in reachable() {
        let refused = transition(&state, &Event::Cancelled).is_err();
        assert_eq!(refused, state.outcome().is_some(), "{state:?}");
    }
}

#[test]
fn every_open_state_has_a_way_out_without_the_machine() {
    for state in reachable().into_iter().filter(|s| !s.is_complete()) {
        let moves = match state.action() {
            Some(action) => {
                transition(&state, &Event::Done(action)).is_ok_and(|next| next != state)
            }
            None => transition(&state, &Event::Overdue(failure("overdue"))).is_ok(),
        };
        assert!(moves, "{state:?}");
    }
}

#[test]
fn media_that_are_not_used_any_more_stay_so() {
    for state in reachable().into_iter().filter(|state| !state.uses_media()) {
        for event in all_events() {
            if let Ok(next) = transition(&state, &event) {
                assert!(!next.uses_media(), "{state:?} + {event:?}");
            }
        }
    }
}

#[test]
fn what_failed_first_stays_named() {
    let state = State::Provisioning(Stage::Writing);
    let mut state =
        transition(&state, &Event::Reported(Outcome::Failed(failure("image-linux.service"))))
            .unwrap();
    for action in [Action::PowerOff, Action::EjectMedia, Action::StartMachine] {
        assert_eq!(state.status(), Status::Failed);
        state = transition(&state, &Event::GaveUp(action, failure("cleanup"))).unwrap();
    }
    assert_eq!(
        state,
        State::Complete {
            outcome: Outcome::Failed(failure("image-linux.service")),
            problem: Some(Failure {
                reason: "because; cleanup: because; cleanup: because".into(),
                ..failure("cleanup")
            }),
        }
    );
}

#[test]
fn only_what_was_touched_is_put_back() {
    let provisioning = State::Provisioning;
    let whole = ["powering_off", "ejecting_media", "starting_machine", "complete"];
    for (state, expected) in [
        (State::Queued, &whole[3..]),
        (provisioning(Stage::BuildingTaskMedium), &whole[3..]),
        (provisioning(Stage::InsertingMedia), &["ejecting_media", "complete"][..]),
        (provisioning(Stage::ReinsertingMedia), &whole[..]),
        (provisioning(Stage::BootingMaintenance), &whole[..]),
        (provisioning(Stage::AwaitingMachine), &whole[..]),
        (provisioning(Stage::Writing), &whole[..]),
    ] {
        let mut ends = vec![Event::Cancelled];
        ends.extend(state.action().map(|action| Event::GaveUp(action, failure("gave-up"))));
        for end in ends {
            let mut now = transition(&state, &end).unwrap();
            let mut names = vec![now.stage_name()];
            while let Some(action) = now.action() {
                now = transition(&now, &Event::Done(action)).unwrap();
                names.push(now.stage_name());
            }
            assert_eq!(names, expected, "{state:?} + {end:?}");
        }
    }
}

/// States in the database of an earlier version must stay readable for ever.
#[test]
fn stored_states_keep_their_words() {
    let failed = Outcome::Failed(failure("x"));
    let closing =
        |cleanup| State::Closing { outcome: failed.clone(), cleanup, problem: Some(failure("y")) };
    let closing_text = |cleanup: &str| {
        format!(
            r#"{{"closing":{{"outcome":{{"failed":{{"step":"x","reason":"because"}}}},"cleanup":"{cleanup}","problem":{{"step":"y","reason":"because"}}}}}}"#
        )
    };
    for (state, text) in [
        (State::Queued, r#""queued""#.to_owned()),
        (
            State::Provisioning(Stage::BuildingTaskMedium),
            r#"{"provisioning":"building_task_medium"}"#.to_owned(),
        ),
        (
            State::Provisioning(Stage::InsertingMedia),
            r#"{"provisioning":"inserting_media"}"#.to_owned(),
        ),
        (
            State::Provisioning(Stage::ReinsertingMedia),
            r#"{"provisioning":"reinserting_media"}"#.to_owned(),
        ),
        (
            State::Provisioning(Stage::BootingMaintenance),
            r#"{"provisioning":"booting_maintenance"}"#.to_owned(),
        ),
        (
            State::Provisioning(Stage::AwaitingMachine),
            r#"{"provisioning":"awaiting_machine"}"#.to_owned(),
        ),
        (State::Provisioning(Stage::Writing), r#"{"provisioning":"writing"}"#.to_owned()),
        (closing(Cleanup::PoweringOff), closing_text("powering_off")),
        (closing(Cleanup::EjectingMedia), closing_text("ejecting_media")),
        (closing(Cleanup::EjectingUnused), closing_text("ejecting_unused")),
        (closing(Cleanup::StartingMachine), closing_text("starting_machine")),
        (
            State::Complete { outcome: Outcome::Succeeded, problem: None },
            r#"{"complete":{"outcome":"succeeded","problem":null}}"#.to_owned(),
        ),
    ] {
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}

#[test]
fn a_refusal_is_in_words_for_people() {
    let complete = State::Complete { outcome: Outcome::Succeeded, problem: None };
    let refused = transition(&complete, &Event::Reported(Outcome::Failed(failure("x"))));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the job is complete; a report of failure changes nothing there"
    );
    for state in reachable() {
        for event in all_events() {
            let Err(refused) = transition(&state, &event) else { continue };
            let text = refused.to_string();
            let is_prose = |c: char| c.is_ascii_alphabetic() || " ;".contains(c);
            assert!(text.chars().all(is_prose), "{text}");
        }
    }
}

#[test]
fn states_and_events_survive_storage() {
    for state in reachable() {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
    for event in all_events() {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
