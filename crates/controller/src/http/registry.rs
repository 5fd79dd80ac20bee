// SPDX-License-Identifier: AGPL-3.0-or-later
//! In front of `/v2/`: who asks, and what of the registry that lets them do. Rights are looked up with
//! every request, so that one that was taken away is gone at once.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use oci::{Digest, Reference, Repository};
use recipe::Recipe;
use registry::{Access, Grant};

use super::auth::token;
use crate::App;
use crate::store::{self, JobRow};

pub async fn authorize(State(app): State<App>, mut request: Request, next: Next) -> Response {
    // Without an access the registry itself answers, with its challenge.
    if let Some(access) = access(&app, request.headers()).await {
        request.extensions_mut().insert(access);
    }
    next.run(request).await
}

/// The admin may do everything; a publisher what its token says; a machine may pull its job's artifact
/// while its attempt is under way.
async fn access(app: &App, headers: &HeaderMap) -> Option<Access> {
    let all = |who: &str| Access { who: who.to_owned(), grant: Grant::Administer };
    if app.settings.no_auth {
        return Some(all("anyone"));
    }
    let token = token(headers)?;
    if app.keys.is_admin_token(&token) {
        return Some(all("admin"));
    }
    match app.registry.access_of(token.clone()).await {
        Ok(None) => {}
        Ok(publisher) => return publisher,
        Err(error) => {
            tracing::error!(error = crate::performer::chain(&error), "find whose token this is");
            return None;
        }
    }
    let attempt = app.keys.attempt_of_pull_token(&token)?;
    match app.store.attempt(&attempt).await {
        Ok(job) if job.state.outcome().is_none() => {
            let grant = artifact(app, &job)
                .unwrap_or(Grant::Prefixes { pull: Vec::new(), push: Vec::new() });
            Some(Access { who: format!("attempt {}", job.attempt), grant })
        }
        Ok(_) | Err(store::Error::NotFound { .. }) => None,
        Err(error) => {
            tracing::error!(%error, "find whose token this is");
            None
        }
    }
}

/// What open jobs need, whether a tag names it or not.
pub async fn needed_by_jobs(app: &App) -> Result<Vec<(Repository, Digest)>, store::Error> {
    let mut needed = Vec::new();
    for status in ["queued", "provisioning", "succeeded", "failed"] {
        for job in app.store.jobs(Some(status.to_owned()), None, None, usize::MAX >> 1).await? {
            if let Some(Grant::Artifact { repository, digest }) = artifact(app, &job) {
                needed.push((repository, digest));
            }
        }
    }
    Ok(needed)
}

/// The artifact of a job, where it is in our registry: what it was when the job was made.
fn artifact(app: &App, job: &JobRow) -> Option<Grant> {
    let recipe = Recipe::parse(job.recipe.as_bytes()).ok()?;
    let reference: Reference = recipe.oci_url()?.parse().ok()?;
    let is_ours = app.settings.is_own_registry(&reference.authority);
    let repository = reference.repository.parse().ok()?;
    let digest = job.artifact_digest.as_ref()?.parse().ok()?;
    is_ours.then_some(Grant::Artifact { repository, digest })
}
