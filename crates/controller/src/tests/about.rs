// SPDX-License-Identifier: AGPL-3.0-or-later
//! What the controller says of itself, to whoever asks.

use super::Controller;

#[tokio::test]
async fn everyone_may_read_the_licences_and_where_the_source_is() {
    let dir = tempfile::tempdir().unwrap();
    let controller = Controller::start(dir.path()).await;
    let answer = reqwest::get(format!("{}/about/licenses", controller.url)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    let text = answer.text().await.unwrap();
    for expected in ["AGPL-3.0-or-later", env!("CARGO_PKG_REPOSITORY"), "\nserde 1.", "SQLite"] {
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
}
