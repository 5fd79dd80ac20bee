// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every route, and the listener.

mod artifacts;
mod auth;
mod health;
mod jobs;
mod media;
mod node;
mod path;
mod problem;
mod registry;
mod servers;
mod webhook;

#[cfg(test)]
pub use registry::needed_by_jobs;

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;

use crate::App;

/// Largest body of an API request: a recipe with all payloads at their limits fits.
pub const BODY_BYTES_MAX: usize = 6 << 20;
/// How long requests under way may take to end after a signal to stop.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

pub fn router(app: App) -> Router {
    let api = Router::new()
        .route("/jobs", post(jobs::create).get(jobs::list))
        .route("/jobs/{id}", get(jobs::show))
        .route("/jobs/{id}/events", get(jobs::events))
        .route("/jobs/{id}/cancel", post(jobs::cancel))
        .route("/servers", get(servers::list))
        .route("/servers/{serial}", get(servers::show).put(servers::put).delete(servers::delete))
        .route("/servers/{serial}/probe", post(servers::probe))
        .route("/artifacts", get(jobs::artifacts))
        .route("/status-webhook/{serial}", post(webhook::receive))
        .route("/node/attempts/{id}/hello", post(node::hello))
        .route("/node/attempts/{id}/permit", post(node::permit))
        .route("/node/attempts/{id}/progress", post(node::progress))
        .route("/node/attempts/{id}/log", post(node::log))
        .route("/node/attempts/{id}/result", post(node::result))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(artifacts::router());
    let registry = ::registry::router(app.registry.clone())
        .layer(from_fn_with_state(app.clone(), registry::authorize));
    Router::new()
        .nest("/api/v1", api)
        .route("/m/{token}/{name}", get(media::serve))
        .route("/healthz", get(health::healthz))
        .fallback(async || {
            problem::refuse(
                StatusCode::NOT_FOUND,
                "no-such-path",
                "not found",
                "there is nothing at this path",
            )
        })
        .method_not_allowed_fallback(async || {
            problem::refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "method not allowed",
                "this path takes other methods",
            )
        })
        .with_state(app)
        .merge(registry)
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(app: App) -> anyhow::Result<()> {
    let settings = app.settings.clone();
    let keys = app.keys.clone();
    let handle = Handle::new();
    let stopper = handle.clone();
    tokio::spawn(async move {
        stop_signal().await;
        stopper.graceful_shutdown(Some(DRAIN));
    });
    announce(&app, handle.clone());
    let tending = tokio::spawn(artifacts::tend(app.clone()));
    let service = router(app).into_make_service();
    let served = if settings.plain_http {
        axum_server::bind(settings.listen).handle(handle).serve(service).await
    } else {
        let tls = RustlsConfig::from_pem_file(&keys.certificate, &keys.private_key)
            .await
            .context("load the server certificate")?;
        axum_server::bind_rustls(settings.listen, tls).handle(handle).serve(service).await
    }
    .with_context(|| format!("serve on {}", settings.listen));
    tending.abort();
    served
}

/// Says where the controller listens and where its secrets are: what a first user needs to know.
fn announce(app: &App, handle: Handle<std::net::SocketAddr>) {
    let settings = app.settings.clone();
    tokio::spawn(async move {
        let Some(address) = handle.listening().await else { return };
        let dir = settings.data_dir.display();
        tracing::info!(%address, node_url = %settings.node_url, media_url = %settings.media_url, "listening");
        tracing::info!("CA: {dir}/tls/ca.pem; admin token: {dir}/admin-token");
        if settings.no_auth || settings.plain_http {
            tracing::warn!(
                "INSECURE options are on: keep this controller off every network but a lab's"
            );
        }
        if settings.maintenance_iso.is_none() {
            tracing::warn!("no --maintenance-iso was given: jobs are refused until there is one");
        }
    });
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "no SIGTERM handler; only Ctrl-C stops gracefully");
            if let Err(error) = tokio::signal::ctrl_c().await {
                tracing::warn!(%error, "no Ctrl-C handler either");
                std::future::pending::<()>().await;
            }
        }
    }
}
