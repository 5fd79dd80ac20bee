// SPDX-License-Identifier: AGPL-3.0-or-later
//! Slots of a BMC that refuse a medium, and media that are not ours.

use url::Url;

use super::bmc::{Bmc, Play};
use super::jobs::{create, is_complete, iso_with_room};
use super::{Controller, temp_dir};
use crate::performer::is_ours;

#[tokio::test]
async fn a_slot_that_refuses_gives_way_to_the_next() {
    let dir = temp_dir();
    iso_with_room(dir.path(), 2 << 20);
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    bmc.seen.lock().unwrap().refuses_first = true;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    assert_eq!(job["media_plan"], "cd");
    // Once each form of the request was refused it is not asked for again, and the boot finds its medium in the
    // other slot.
    let mut story = bmc.story();
    story.dedup();
    assert_eq!(story[..3], ["insert refused", "insert 1", "on cd"], "{story:?}");
    assert_eq!(bmc.seen.lock().unwrap().slots, [None, None]);
    let events = controller.get(&format!("/api/v1/jobs/{id}/events")).await.to_string();
    assert!(events.contains("VirtualMedia/0 took no medium"), "{events}");
}

#[test]
fn a_medium_is_ours_by_scheme_host_port_and_path() {
    let base = Url::parse("https://192.0.2.1").unwrap();
    let other = Url::parse("http://127.0.0.1:8080").unwrap();
    for (shown, base, expected) in [
        ("https://192.0.2.1/m/abc/task.iso", &base, true),
        ("https://192.0.2.1:443/m/abc/task.iso", &base, true),
        ("https://192.0.2.12/m/abc/task.iso", &base, false),
        ("https://192.0.2.1:8443/m/abc/task.iso", &base, false),
        ("http://192.0.2.1/m/abc/task.iso", &base, false),
        ("https://192.0.2.1/live/rescue.iso", &base, false),
        ("https://evil/?https://192.0.2.1/m/abc/task.iso", &base, false),
        ("http://127.0.0.12/m/abc/rescue.iso", &other, false),
        ("http://127.0.0.1:8080/m/abc/task.iso", &other, true),
        ("task.iso", &base, false),
        ("", &base, false),
    ] {
        assert_eq!(is_ours(shown, base), expected, "{shown}");
    }
}
