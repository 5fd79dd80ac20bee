// SPDX-License-Identifier: AGPL-3.0-or-later
//! `GET /healthz`: alive, for whoever asks; nothing else.

pub async fn healthz() -> &'static str {
    "ok\n"
}
