// SPDX-License-Identifier: AGPL-3.0-or-later
//! A machine that has the serial number of a job's server and is another one all the same.

use super::rows::{self, at_once};
use crate::store::{NewJobRow, ServerRow, Store, Unheard};

/// What the BMC tells, and what the machine that asks for its permit has.
fn permit(told: &str, own: &str, ignores_uuid: bool) -> Result<(), Unheard> {
    let store = Store::in_memory().unwrap();
    at_once(store.put_server(ServerRow { ignores_uuid, ..rows::server("SN1") })).unwrap();
    at_once(store.create_job(NewJobRow { now: 0, ..rows::job("j1", "SN1", "a1") })).unwrap();
    at_once(store.issue_media("j1", "cd+cd", told.into(), Vec::new(), 0)).unwrap();
    for event in rows::until_awaited() {
        at_once(store.apply("j1", None, event, "test".into(), 0)).unwrap();
    }
    at_once(store.hello("a1", rows::boot("b1"), 0)).unwrap().unwrap();
    let mut request = rows::permit("SN1");
    request.dmi.uuid = own.into();
    let speaker = rows::speaker("a1", "b1");
    at_once(store.permit(speaker, request, 0)).unwrap().map(|_job| ())
}

#[test]
fn a_machine_with_another_uuid_than_its_bmc_tells_may_not_write() {
    let (mine, other) =
        ("4c4c4544-004b-4d10-8032-b7c04f463533", "30303031-3932-5355-4531-313156484e31");
    match permit(mine, other, false) {
        Err(Unheard::WrongMachine(why)) => {
            assert!(why.contains(mine) && why.contains(other), "{why}");
            assert!(why.contains("--dangerously-ignore-uuid"), "{why}");
        }
        answer => panic!("{answer:?}"),
    }
    permit(mine, other, true).unwrap();
    permit(mine, mine, false).unwrap();
    // A BMC that tells none, or all zeros, contradicts nobody.
    permit("", other, false).unwrap();
    permit("00000000-0000-0000-0000-000000000000", other, false).unwrap();
}
