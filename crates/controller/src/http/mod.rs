// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every route, and the listener.

mod about;
mod access;
mod actions;
mod artifacts;
mod auth;
mod firmware;
mod health;
mod jobs;
mod limits;
mod media;
mod node;
mod path;
mod plan;
mod problem;
mod registry;
mod servers;
mod throttle;
mod webhook;

#[cfg(test)]
pub use registry::needed_by_jobs;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::access::Role;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;

pub use auth::Needs;
use auth::{Gate, guard, may_change};
use limits::{Connections, Limited};
pub use throttle::Throttle;

use crate::App;

/// Largest body of an API request: a recipe with all payloads at their limits fits.
pub const BODY_BYTES_MAX: usize = 6 << 20;
/// How long requests under way may take to end after a signal to stop.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// One method of one path, and what answers it.
pub struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "`answer` has it too, but does not tell"))]
    pub method: Method,
    pub path: &'static str,
    /// Who may ask.
    pub needs: Needs,
    is_noted: bool,
    answer: MethodRouter<App>,
}

/// Every route but the registry's, with who may use it; the registry's are guarded in `registry`, which
/// has its own specification. Tests hold `api::openapi` against this table: what is here is described
/// there, and the reverse.
pub fn routes() -> Vec<Route> {
    use Needs::{AdminOrWebhook, Attempt, Nothing};
    const READER: Needs = Needs::Role(Role::Reader);
    const OPERATOR: Needs = Needs::Role(Role::Operator);
    const ADMIN: Needs = Needs::Role(Role::Admin);
    vec![
        route(Method::POST, "/api/v1/jobs", OPERATOR, jobs::create),
        route(Method::GET, "/api/v1/jobs", READER, jobs::list),
        route(Method::GET, "/api/v1/jobs/{id}", READER, jobs::show),
        route(Method::GET, "/api/v1/jobs/{id}/events", READER, jobs::events),
        route(Method::POST, "/api/v1/jobs/{id}/cancel", OPERATOR, jobs::cancel),
        route(Method::GET, "/api/v1/jobs/{id}/evidence", READER, jobs::evidence),
        route(Method::GET, "/api/v1/servers", READER, servers::list),
        route(Method::GET, "/api/v1/servers/{serial}", READER, servers::show),
        route(Method::PUT, "/api/v1/servers/{serial}", ADMIN, servers::put),
        route(Method::DELETE, "/api/v1/servers/{serial}", ADMIN, servers::delete),
        route(Method::POST, "/api/v1/servers/{serial}/probe", OPERATOR, servers::probe),
        route(Method::POST, "/api/v1/servers/{serial}/actions/power", OPERATOR, actions::power),
        route(Method::POST, "/api/v1/servers/{serial}/actions/boot", OPERATOR, actions::boot),
        route(Method::GET, "/api/v1/servers/{serial}/firmware", OPERATOR, firmware::list),
        route(Method::POST, "/api/v1/servers/{serial}/firmware", OPERATOR, firmware::update)
            .without_limit(),
        route(Method::GET, "/api/v1/servers/{serial}/firmware/update", READER, firmware::show),
        route(Method::GET, "/api/v1/artifacts", READER, jobs::artifacts),
        route(Method::POST, "/api/v1/artifacts/gc", ADMIN, artifacts::collect).without_limit(),
        route(Method::POST, "/api/v1/artifacts/scrub", ADMIN, artifacts::scrub).without_limit(),
        route(Method::GET, "/api/v1/artifacts/export", ADMIN, artifacts::export).without_limit(),
        route(Method::POST, "/api/v1/artifacts/import", ADMIN, artifacts::import).without_limit(),
        route(Method::GET, "/api/v1/artifacts/tokens", ADMIN, artifacts::tokens).without_limit(),
        route(Method::POST, "/api/v1/artifacts/tokens", ADMIN, artifacts::create_token),
        route(Method::DELETE, "/api/v1/artifacts/tokens/{name}", ADMIN, artifacts::revoke_token)
            .without_limit(),
        route(Method::GET, "/api/v1/tokens", ADMIN, access::list),
        route(Method::POST, "/api/v1/tokens", ADMIN, access::create),
        route(Method::DELETE, "/api/v1/tokens/{id}", ADMIN, access::revoke),
        route(Method::GET, "/api/v1/audit", ADMIN, access::audit),
        route(Method::POST, "/api/v1/status-webhook/{serial}", AdminOrWebhook, webhook::receive),
        route(Method::POST, "/api/v1/node/attempts/{id}/hello", Attempt, node::hello),
        route(Method::POST, "/api/v1/node/attempts/{id}/permit", Attempt, node::permit),
        route(Method::POST, "/api/v1/node/attempts/{id}/progress", Attempt, node::progress)
            .without_note(),
        route(Method::POST, "/api/v1/node/attempts/{id}/log", Attempt, node::log).without_note(),
        route(Method::POST, "/api/v1/node/attempts/{id}/result", Attempt, node::result),
        route(Method::GET, "/m/{token}/{name}", Nothing, media::serve),
        route(Method::HEAD, "/m/{token}/{name}", Nothing, media::serve),
        route(Method::GET, "/healthz", Nothing, health::healthz),
        route(Method::GET, "/openapi.json", Nothing, about::openapi),
        route(Method::GET, "/about/licenses", Nothing, about::licenses),
    ]
}

fn route<H: Handler<T, App>, T: 'static>(
    method: Method,
    path: &'static str,
    needs: Needs,
    handler: H,
) -> Route {
    let filter = MethodFilter::try_from(method.clone()).expect("the table has axum's methods only");
    let is_noted = may_change(&method);
    Route { method, path, needs, is_noted, answer: on(filter, handler) }
}

impl Route {
    /// Takes bodies larger than [`BODY_BYTES_MAX`].
    fn without_limit(mut self) -> Route {
        self.answer = self.answer.route_layer(DefaultBodyLimit::disable());
        self
    }

    /// Changes nothing but what is told of a job: its events have it, and there is much of it.
    fn without_note(mut self) -> Route {
        self.is_noted = false;
        self
    }
}

pub fn router(app: App) -> Router {
    let registry = ::registry::router(app.registry.clone())
        .layer(from_fn_with_state(app.clone(), registry::authorize));
    let mut router = Router::new();
    for Route { method: _, path, needs, is_noted, answer } in routes() {
        let gate = Gate { app: app.clone(), needs, path, is_noted };
        let answer = match needs {
            Needs::Nothing => answer,
            Needs::Role(_) | Needs::AdminOrWebhook | Needs::Attempt => {
                answer.route_layer(from_fn_with_state(gate, guard))
            }
        };
        router = router.route(path, answer);
    }
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
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
    let handle = Handle::new();
    let stopper = handle.clone();
    tokio::spawn(async move {
        stop_signal().await;
        stopper.graceful_shutdown(Some(DRAIN));
    });
    announce(&app, handle.clone());
    let tending = tokio::spawn(artifacts::tend(app.clone()));
    let served = listen(app, handle).await;
    tending.abort();
    served
}

/// A client that has not sent the head of its next request by then is gone, or holds connections open
/// for no good reason. Machines that boot read in bursts: they connect again.
const HEAD_MAX: Duration = Duration::from_secs(120);

/// How long a connection may say nothing.
fn bound(server: &mut Builder<TokioExecutor>, head_max: Duration) {
    server.http1().timer(TokioTimer::new()).header_read_timeout(head_max);
}

/// Serves until `handle` stops it. Speaks HTTP/1.1 only, as BMCs and nodes do: axum-server would offer
/// HTTP/2 too, a second parser in front of everyone that nobody needs.
pub async fn listen(app: App, handle: Handle<SocketAddr>) -> anyhow::Result<()> {
    let settings = app.settings.clone();
    let keys = app.keys.clone();
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let connections = Connections::of_this_process();
    if settings.plain_http {
        let server = axum_server::bind(settings.listen).http1_only().handle(handle);
        let mut server = server.map(|inner| Limited { inner, connections });
        bound(server.http_builder(), HEAD_MAX);
        server.serve(service).await
    } else {
        let tls = RustlsConfig::from_pem_file(&keys.certificate, &keys.private_key)
            .await
            .context("load the server certificate")?;
        let mut config = ServerConfig::clone(&tls.get_inner());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = RustlsConfig::from_config(Arc::new(config));
        let server = axum_server::bind_rustls(settings.listen, tls).http1_only().handle(handle);
        let mut server = server.map(|inner| Limited { inner, connections });
        bound(server.http_builder(), HEAD_MAX);
        server.serve(service).await
    }
    .with_context(|| format!("serve on {}", settings.listen))
}

/// Says where the controller listens and where its secrets are: what a first user needs to know.
fn announce(app: &App, handle: Handle<SocketAddr>) {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_connection_on_which_nobody_asks_ends() {
        let handle = Handle::<SocketAddr>::new();
        let mut server =
            axum_server::bind("127.0.0.1:0".parse().unwrap()).http1_only().handle(handle.clone());
        bound(server.http_builder(), Duration::from_millis(300));
        let router = Router::new().route("/", axum::routing::get(async || "hello"));
        let serving = tokio::spawn(server.serve(router.into_make_service()));
        let address = handle.listening().await.unwrap();
        for said in ["", "GET / HTTP/1.1\r\nhost:", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            let mut heard = Vec::new();
            let end = client.read_to_end(&mut heard);
            tokio::time::timeout(Duration::from_secs(30), end).await.expect("it ends").unwrap();
            let is_answered = heard.starts_with(b"HTTP/1.1 200 OK");
            assert_eq!(is_answered, said.ends_with("\r\n\r\n"), "{said:?}");
        }
        serving.abort();
    }
}
