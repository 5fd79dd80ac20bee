// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller's description of itself, readable without a token: its API document and its licences. The texts are
//! written at build time and contain nothing about this installation.

use axum::http::header;
use axum::response::IntoResponse;

/// AGPL-3.0, section 13: users who reach the program over a network must be offered its source. An operator of a
/// changed version sets `repository` in the workspace's Cargo.toml to the place of the changed source.
const LICENSES: &str = concat!(
    "Shoal ",
    env!("CARGO_PKG_VERSION"),
    "

Shoal is free software: you can redistribute it and/or modify it under the terms of the GNU Affero
General Public License as published by the Free Software Foundation, either version 3 of the License,
or (at your option) any later version (AGPL-3.0-or-later). It is distributed in the hope that it will be
useful, but WITHOUT ANY WARRANTY; without even the implied warranty of MERCHANTABILITY or FITNESS FOR A
PARTICULAR PURPOSE. The licence: https://www.gnu.org/licenses/agpl-3.0.txt

Its source: ",
    env!("CARGO_PKG_REPOSITORY"),
    "

The maintenance OS that it boots is Debian with programs of Shoal; what each package's licence is stands
in it, under /usr/share/doc.

",
    include_str!("../../../../docs/third-party.txt"),
);

pub async fn licenses() -> &'static str {
    LICENSES
}

pub async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api::openapi::DOCUMENT)
}
