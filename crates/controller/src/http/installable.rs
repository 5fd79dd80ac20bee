// SPDX-License-Identifier: AGPL-3.0-or-later
//! Whether an artifact of the embedded registry can be installed. If it cannot, a plan shows it, a new job is
//! refused, and a machine gets no permit. The registry decides (`registry::Verdict`); the machine itself checks an
//! artifact of another registry before it requests its permit.

use std::time::Duration;

use api::artifacts::Verdict as Shown;
use api::problem::FieldProblem;
use axum::http::StatusCode;
use oci::{Digest, Reference, Repository};
use recipe::{Recipe, Workflow};
use registry::Verdict;

use super::app::App;
use super::problem::{Answer, Refusal, refuse};
use crate::store::JobRow;

/// How long a plan or a new job waits for a verdict: 20 s are enough for several GB. A verdict that takes longer is
/// looked up again when the machine requests its permit.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Returns the verdict on a recipe's artifact; `None` if none applies.
pub async fn judge(app: &App, recipe: &Recipe, digest: Option<&str>) -> Answer<Option<Verdict>> {
    let Some((repository, digest)) = own_artifact(app, recipe, digest) else { return Ok(None) };
    match tokio::time::timeout(WAIT_MAX, app.registry.judge(&repository, &digest)).await {
        Ok(verdict) => Ok(Some(verdict?)),
        Err(_) => {
            let why = "its layers are still being read; ask again in a minute";
            Ok(Some(Verdict::Unknown(why.into())))
        }
    }
}

/// Fails if a job's artifact was found not to be installable since the job was created. Blocks for a query.
pub fn check_job(app: &App, job: &JobRow) -> Answer<()> {
    let Ok(recipe) = Recipe::parse(job.recipe.as_bytes()) else { return Ok(()) };
    let Some((_, digest)) = own_artifact(app, &recipe, job.artifact_digest.as_deref()) else {
        return Ok(());
    };
    match app.registry.verdict(&digest)? {
        Some(Verdict::Refused(why)) => Err(refusal(&why)),
        Some(Verdict::Installable | Verdict::Unknown(_)) | None => Ok(()),
    }
}

/// Returns the verdict and its reason for a list. Blocks for a query.
pub fn shown(app: &App, digest: Option<&Digest>) -> Answer<(Shown, Option<String>)> {
    let Some(digest) = digest else { return Ok((Shown::NotJudged, None)) };
    Ok(match app.registry.verdict(digest)? {
        Some(Verdict::Installable) => (Shown::Installable, None),
        Some(Verdict::Refused(why)) => (Shown::NotInstallable, Some(why)),
        Some(Verdict::Unknown(why)) => (Shown::NotJudged, Some(why)),
        None => (Shown::NotJudged, Some("it was not looked at yet".into())),
    })
}

pub fn refusal(why: &str) -> Refusal {
    let message = format!("the OS artifact cannot be installed: {why}");
    refuse(
        StatusCode::UNPROCESSABLE_ENTITY,
        "artifact-not-installable",
        "the OS artifact cannot be installed",
        message.clone(),
    )
    .with_errors(vec![FieldProblem {
        path: "/recipe/oci_url".into(),
        code: "artifact-not-installable".into(),
        message,
    }])
}

/// Whether a recipe's `oci_url` is in the embedded registry.
pub fn is_ours(app: &App, oci_url: &str) -> bool {
    let reference: Result<Reference, _> = oci_url.parse();
    reference.is_ok_and(|reference| app.settings.is_own_registry(&reference.authority))
}

/// Returns the repository and the manifest of a root filesystem in the embedded registry.
fn own_artifact(app: &App, recipe: &Recipe, digest: Option<&str>) -> Option<(Repository, Digest)> {
    let Workflow::Linux(linux) = &recipe.workflow else { return None };
    let reference: Reference = linux.oci_url.parse().ok()?;
    let is_ours = app.settings.is_own_registry(&reference.authority);
    Some((reference.repository, digest?.parse().ok()?)).filter(|_| is_ours)
}
