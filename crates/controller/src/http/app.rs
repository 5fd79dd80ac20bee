// SPDX-License-Identifier: AGPL-3.0-or-later
//! The state that all handlers share.

use std::sync::Arc;

use axum::extract::FromRef;

use super::answers::Answers;
use super::bodies::Bodies;
use super::readers::AllReaders;
use super::refusals::Refusals;
use crate::access::Access;
use crate::bmc::Bmcs;
use crate::jobs::Jobs;
use crate::keys::Keys;
use crate::media::Media;
use crate::settings::Settings;
use crate::store::Store;
use crate::updates::Updates;

/// Everything that a request needs; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub settings: Arc<Settings>,
    pub store: Store,
    pub keys: Arc<Keys>,
    pub media: Arc<Media>,
    pub registry: Arc<registry::Registry>,
    pub access: Arc<Access>,
    pub bmcs: Bmcs,
    pub jobs: Jobs,
    pub updates: Arc<Updates>,
    pub refusals: Arc<Refusals>,
    pub readers: Arc<AllReaders>,
    pub answers: Arc<Answers>,
    pub bodies: Arc<Bodies>,
}

impl FromRef<App> for Arc<Bodies> {
    fn from_ref(app: &App) -> Arc<Bodies> {
        app.bodies.clone()
    }
}
