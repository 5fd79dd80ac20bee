// SPDX-License-Identifier: AGPL-3.0-or-later
//! The conditions for a new job, in one list: a plan shows all of them, and `POST /jobs` is refused by the first that
//! fails.

use api::jobs::{Check, CheckResult};
use api::problem::FieldProblem;
use axum::http::StatusCode;
use recipe::Recipe;
use registry::Verdict;

use super::app::App;
use super::installable;
use super::problem::{Answer, Refusal, refuse};
use super::servers::closed;
use crate::bmc::Unavailable;
use crate::store::ServerRow;

/// Targets that this version's maintenance OS can carry out.
const TARGETS: &[&str] = &["install-linux.target"];

/// The results of all checks.
pub struct Admission {
    /// Every check, whatever the results of the others.
    pub checks: Vec<Check>,
    /// The first check that refuses a job.
    refusal: Option<Refusal>,
    /// The digest to which the recipe's `oci_url` resolves now, if it is known.
    pub artifact_digest: Option<String>,
    /// The server's firmware is being updated.
    pub is_updating: bool,
}

impl Admission {
    fn note(&mut self, name: &str, pass: impl Into<String>, refused: Option<Refusal>) {
        match refused {
            None => self.checks.push(check(name, CheckResult::Pass, pass)),
            Some(refusal) => {
                self.checks.push(check(name, CheckResult::Fail, refusal.0.detail.clone()));
                self.refusal.get_or_insert(refusal);
            }
        }
    }

    fn refused(self) -> Answer<Admission> {
        match self.refusal {
            None => Ok(self),
            Some(refusal) => Err(refusal),
        }
    }

    /// Resolves the recipe's artifact and waits for the registry's verdict, which may take as long as reading the
    /// layers.
    async fn with_artifact(mut self, app: &App, recipe: &Recipe) -> Answer<Admission> {
        match resolve_artifact(app, recipe)? {
            Ok(digest) => {
                let verdict = installable::judge(app, recipe, digest.as_deref()).await?;
                self.checks.push(artifact(app, recipe, digest.as_deref(), verdict.as_ref()));
                if let Some(Verdict::Refused(why)) = verdict {
                    self.refusal.get_or_insert(installable::refusal(&why));
                }
                self.artifact_digest = digest;
            }
            Err(unknown) => self.note("artifact", "", Some(unknown)),
        }
        Ok(self)
    }
}

/// Makes every check, for a plan.
pub async fn look(app: &App, server: &ServerRow, recipe: &Recipe) -> Answer<Admission> {
    at_once(app, server, recipe).with_artifact(app, recipe).await
}

/// Checks whether there may be a job, up to the first check that refuses it. Returns the digest of its artifact.
pub async fn admit(app: &App, server: &ServerRow, recipe: &Recipe) -> Answer<Option<String>> {
    let admission = at_once(app, server, recipe).refused()?;
    Ok(admission.with_artifact(app, recipe).await?.refused()?.artifact_digest)
}

/// The checks that wait for nothing. The check for another open job is only for display: the store enforces it when
/// the job is stored.
fn at_once(app: &App, server: &ServerRow, recipe: &Recipe) -> Admission {
    let is_updating = app.updates.is_running(&server.serial);
    let mut admission =
        Admission { checks: Vec::new(), refusal: None, artifact_digest: None, is_updating };
    let target = recipe.task_target.as_str();
    admission.note("target", format!("the maintenance OS has {target}"), wrong_target(target));
    admission.checks.push(open_job(server));
    let updating = is_updating.then(|| closed(Unavailable::Updating));
    admission.note("firmware-update", "no firmware update is under way", updating);
    let missing = (!app.media.has_maintenance()).then(no_maintenance);
    admission.note("maintenance-iso", "there is a maintenance OS to boot", missing);
    let full = (!app.store.has_room()).then(|| disk_full(app));
    admission.note("disk-room", "the controller's disk has room for a job", full);
    admission
}

pub fn check(name: &str, result: CheckResult, detail: impl Into<String>) -> Check {
    Check { name: name.into(), result, detail: detail.into() }
}

fn wrong_target(target: &str) -> Option<Refusal> {
    (!TARGETS.contains(&target)).then(|| {
        refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            "target-unsupported",
            "this version cannot carry out the target",
            format!(
                "task_target {target:?} is valid, but the maintenance OS of this version only has {}",
                TARGETS.join(", ")
            ),
        )
    })
}

fn open_job(server: &ServerRow) -> Check {
    match &server.active_job {
        None => check("server", CheckResult::Pass, "the server has no open job"),
        Some(job) => check(
            "server",
            CheckResult::Fail,
            format!("the server has the open job {job}; wait for its end or cancel it"),
        ),
    }
}

fn no_maintenance() -> Refusal {
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        "no-maintenance-iso",
        "there is no maintenance OS to boot",
        "start the controller with --maintenance-iso FILE",
    )
}

pub fn disk_full(app: &App) -> Refusal {
    refuse(
        StatusCode::INSUFFICIENT_STORAGE,
        "disk-full",
        "the controller's disk is full",
        format!(
            "jobs that run go on, new ones are not taken; make room on the file system of {}: \
             POST /artifacts/gc removes what no tag needs",
            app.settings.data_dir.display()
        ),
    )
}

fn artifact(app: &App, recipe: &Recipe, digest: Option<&str>, verdict: Option<&Verdict>) -> Check {
    let elsewhere = "in a registry that only the machine asks; it is looked at there, before the disk is written";
    let (result, detail) = match (recipe.oci_url(), digest, verdict) {
        (None, _, _) => (CheckResult::Pass, "the recipe needs none".to_owned()),
        (Some(url), Some(digest), Some(Verdict::Installable)) => {
            (CheckResult::Pass, format!("{url} is {digest}, which can be installed"))
        }
        (Some(url), Some(digest), Some(Verdict::Refused(why))) => {
            (CheckResult::Fail, format!("{url} is {digest}, which cannot be installed: {why}"))
        }
        (Some(url), Some(digest), Some(Verdict::Unknown(why))) => (
            CheckResult::Warn,
            format!("{url} is {digest}; whether it can be installed is not known: {why}"),
        ),
        // An artifact of another target.
        (Some(url), Some(digest), None) if installable::is_ours(app, url) => {
            (CheckResult::Pass, format!("{url} is {digest}"))
        }
        (Some(url), Some(digest), None) => {
            (CheckResult::Warn, format!("{url} is {digest}, {elsewhere}"))
        }
        (Some(url), None, _) => (CheckResult::Warn, format!("{url} is {elsewhere}")),
    };
    check("artifact", result, detail)
}

/// Resolves `oci_url` if it is in the embedded registry. The job keeps the digest, so a tag moved later does not
/// change it, and a missing artifact is reported before a machine is touched. The inner error refuses the job.
fn resolve_artifact(app: &App, recipe: &Recipe) -> Answer<Result<Option<String>, Refusal>> {
    let Some(url) = recipe.oci_url() else { return Ok(Ok(None)) };
    let reference: oci::Reference = url.parse().map_err(|error| {
        anyhow::anyhow!("a valid recipe has an oci_url that does not parse: {error}")
    })?;
    if !app.settings.is_own_registry(&reference.authority) {
        return Ok(Ok(reference.digest.map(|digest| digest.to_string())));
    }
    let wanted = reference.tag_or_digest();
    match app.registry.resolve(&reference.repository, &wanted).map_err(anyhow::Error::from)? {
        Some(descriptor) => Ok(Ok(Some(descriptor.digest.to_string()))),
        None => {
            let message = format!(
                "{}:{wanted} is not in this controller's registry; push it first with `shoal artifact push`",
                reference.repository
            );
            Ok(Err(refuse(
                StatusCode::UNPROCESSABLE_ENTITY,
                "artifact-unknown",
                "the OS artifact is not there",
                message.clone(),
            )
            .with_errors(vec![FieldProblem {
                path: "/recipe/oci_url".into(),
                code: "artifact-unknown".into(),
                message,
            }])))
        }
    }
}
