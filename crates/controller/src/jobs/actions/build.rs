// SPDX-License-Identifier: AGPL-3.0-or-later
//! Builds and stores the task medium of a job.

use recipe::machine::Names;

use crate::failure::{Done, Failed};
use crate::jobs::parts::Jobs;
use crate::keys::sha256;
use crate::store::JobRow;

/// Builds the task medium. `names` are the machine's names as its BMC reports them; empty before the BMC was asked.
pub async fn build_task_medium(jobs: &Jobs, job: &JobRow, names: &Names) -> Done {
    let failed = |reason: String| Failed::new("iso.build", reason, false);
    let recipe = recipe::Recipe::parse(job.recipe.as_bytes()).map_err(|problems| {
        let list: Vec<String> =
            problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        failed(format!("the stored recipe is not valid any more: {}", list.join("; ")))
    })?;
    let server = jobs.store.server(&job.server_serial).await;
    let ignores_uuid = server.map_err(|error| Failed::by_store("iso.build", &error))?.ignores_uuid;
    let attempt = recipe::task_medium::Attempt {
        job_id: job.id.clone(),
        attempt_id: job.attempt.clone(),
        server_serial: job.server_serial.clone(),
        machine_names: names.clone(),
        ignores_uuid,
        controller_url: jobs.settings.node_url.to_string().trim_end_matches('/').to_owned(),
        controller_ca_pem: (!jobs.settings.plain_http).then(|| jobs.keys.trusted_pem()),
        token: jobs.keys.attempt_token(&job.attempt).into(),
        registry: Some(recipe::task_medium::RegistryAccess {
            authority: jobs.settings.registry_authority(),
            token: jobs.keys.pull_token(&job.attempt).into(),
        }),
        artifact_digest: job.artifact_digest.clone(),
        // Over plain HTTP others could read the response that has the secrets as easily as the medium.
        withholds_secrets: !jobs.settings.plain_http && recipe.without_secrets() != recipe,
    };
    let signed = jobs.keys.signer.signed(recipe::task_medium::files(&recipe, &attempt));
    let iso = task_iso(signed, &job.id).map_err(&failed)?;
    let story = format!("task.iso: {} bytes, sha256 {}", iso.len(), hex::encode(sha256(&iso)));
    let (media, attempt) = (jobs.media.clone(), job.attempt.clone());
    let keeping = tokio::task::spawn_blocking(move || media.keep_task(&attempt, &iso));
    let kept = keeping.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    kept.map_err(|error| failed(format!("store the task medium: {error}")))?;
    Ok(story)
}

fn task_iso(files: Vec<recipe::File>, job_id: &str) -> Result<Vec<u8>, String> {
    let files: Vec<iso9660::File> = files
        .into_iter()
        .map(|file| iso9660::File { name: file.name, bytes: file.bytes })
        .collect();
    let volume =
        iso9660::Volume { id: recipe::task_medium::volume_id(job_id), ..Default::default() };
    iso9660::to_vec(&files, &volume).map_err(|error| error.to_string())
}
