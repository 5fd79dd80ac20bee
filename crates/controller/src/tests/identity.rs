// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of which machine may write: one whose own names match those that its BMC reports.

use api::node::Dmi;
use recipe::machine::{BmcFacts, Names};
use serde_json::json;

use super::bmc::{self, Bmc, Play};
use super::jobs::{create_as, is_complete};
use super::rows::{self, at_once};
use super::{Controller, temp_dir};
use crate::store::{NewJobRow, Rejected, ServerRow, Store};

const MINE: &str = "4c4c4544-004b-4d10-8032-b7c04f463533";
const OTHER: &str = "30303031-3932-5355-4531-313156484e31";

/// Asks for a permit: `told` is what the BMC reports, `own` what the machine reports about itself.
fn permit(told: &BmcFacts, own: Dmi, ignores_uuid: bool) -> Result<(), Rejected> {
    let store = Store::in_memory().unwrap();
    at_once(store.put_server(ServerRow { ignores_uuid, ..rows::server("SN1") })).unwrap();
    at_once(store.create_job(NewJobRow { now: 0, ..rows::job("j1", "SN1", "a1") })).unwrap();
    at_once(store.issue_media("j1", "cd+cd", Names::of_bmc(told), Vec::new(), 0)).unwrap();
    for event in rows::until_awaited() {
        at_once(store.apply("j1", None, event, "test".into(), 0)).unwrap();
    }
    at_once(store.hello("a1", rows::boot("b1"), 0)).unwrap().unwrap();
    let mut request = rows::permit("SN1");
    request.dmi = own;
    let boot_session = rows::boot_session("a1", "b1");
    at_once(store.permit(boot_session, request, 0)).unwrap().map(|_job| ())
}

fn told<'a>(serial: &'a str, uuid: &'a str) -> BmcFacts<'a> {
    BmcFacts { serial, uuid, ..BmcFacts::default() }
}

fn own(serial: &str, uuid: &str) -> Dmi {
    Dmi { serial: serial.into(), uuid: uuid.into(), ..Dmi::default() }
}

#[test]
fn a_machine_with_another_uuid_than_its_bmc_tells_may_not_write() {
    match permit(&told("SN1", MINE), own("SN1", OTHER), false) {
        Err(Rejected::WrongMachine(why)) => {
            assert!(why.contains(MINE) && why.contains(OTHER), "{why}");
            assert!(why.contains("--dangerously-ignore-uuid"), "{why}");
        }
        answer => panic!("{answer:?}"),
    }
    permit(&told("SN1", MINE), own("SN1", OTHER), true).unwrap();
    permit(&told("SN1", MINE), own("SN1", MINE), false).unwrap();
    // A BMC that reports no UUID, or all zeros, contradicts no machine.
    permit(&told("SN1", ""), own("SN1", OTHER), false).unwrap();
    let zeros = "00000000-0000-0000-0000-000000000000";
    permit(&told("SN1", zeros), own("SN1", OTHER), false).unwrap();
}

#[test]
fn only_names_that_one_machine_alone_has_give_a_permit() {
    let batch = "03000200-0400-0500-0006-000700080009";
    for (told, own, is_granted) in [
        (told("SN1  ", MINE), own(" SN1 ", ""), true),
        (told("SN1", MINE), own("SN2", MINE), false),
        (told("SN1", batch), own("SN2", batch), false),
        (told("SN1", MINE), own("0123456789", MINE), true),
        (told("SN1", ""), own("", MINE), false),
        (told("", MINE), own("SN1", MINE), true),
        (told("", MINE), own("SN2", MINE), false),
        (told("SN2", ""), own("SN1", ""), false),
    ] {
        let answer = permit(&told, own.clone(), false);
        assert_eq!(answer.is_ok(), is_granted, "{told:?} and {own:?}: {answer:?}");
    }
    // Two blades of one chassis.
    let blade = Dmi { chassis_serial: "SN1".into(), ..own("B2", "") };
    permit(&told("SN1", ""), blade, false).unwrap_err();
}

#[tokio::test]
async fn a_dell_is_installed_by_each_of_its_names_and_told_by_which() {
    for (name, in_words) in [
        ("ABC1234", "service tag \"ABC1234\""),
        (bmc::DELL_BOARD, "board serial \"CNEXAMPLE00001\""),
        (bmc::UUID, "UUID \"00000000-0000-4000-8000-000000000001\""),
    ] {
        let dir = temp_dir();
        let controller = Controller::start(dir.path()).await;
        let bmc = Bmc::start("ABC1234", Play::Dell).await;
        let id = create_as(&controller, &bmc, name).await;
        let job = controller.job_when(&id, is_complete).await;
        assert_eq!(job["outcome"], "succeeded", "{name}: {job:#}");
        assert_eq!(job["needs_attention"], json!(null), "{name}");
        let events = controller.app.store.events(&id, 0, 1000).await.unwrap();
        let found_by = format!("the machine has the server's name as its {in_words}");
        let same = format!("the BMC's {in_words} is the board's {in_words}");
        for (kind, words) in [("insert_media", &found_by), ("hello", &same), ("permitted", &same)] {
            let is_told = events.iter().any(|event| event.message.contains(words.as_str()));
            assert!(is_told, "{name}: {kind}: no {words:?} in {events:#?}");
        }
    }
}

#[tokio::test]
async fn a_product_number_leads_to_no_machine() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    // The BMC also shows a SKU; here it is a product number, which other machines share.
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let id = create_as(&controller, &bmc, "P12345-B21").await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["failed_step"], "redfish.discover", "{job:#}");
    assert_eq!(bmc.story(), Vec::<String>::new(), "nothing was done to it");
}
