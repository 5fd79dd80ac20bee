// SPDX-License-Identifier: AGPL-3.0-or-later
//! `GET /healthz`: the process is alive. Needs no token and reports nothing else.

pub async fn healthz() -> &'static str {
    "ok\n"
}
