// SPDX-License-Identifier: AGPL-3.0-or-later
//! All routes but the registry's: the listener that serves each, the permission it needs, and its handler.

mod about;
mod access;
mod actions;
mod addresses;
mod admission;
mod answers;
mod app;
mod artifacts;
mod audit;
mod bodies;
mod browser;
mod caller;
mod capture;
mod extract;
mod firmware;
mod guard;
mod headers;
mod health;
mod installable;
mod jobs;
mod limits;
mod linger;
mod media;
mod node;
mod path;
mod plan;
mod problem;
mod readers;
mod refusals;
mod registry;
mod servers;
mod sockets;
mod stalled;
mod webhook;

#[cfg(test)]
pub use registry::needed_by_jobs;

use api::access::Role;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn_with_state, map_request, map_response, map_response_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};

pub use app::App;
use audit::may_change;
pub use bodies::BODY_BYTES_MAX;
pub use guard::Needs;
use guard::{Gate, guard};
pub use limits::raise_descriptors;
use problem::{no_such_path, refuse};
#[cfg(test)]
pub use refusals::write_all as write_refusals;
use registry::{Callers, RegistryGate};
pub use sockets::serve;
#[cfg(test)]
pub use sockets::{bind, serve_on};

use crate::settings::listeners::Listener;

/// One method of one path, and its handler.
pub struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "`answer` has it too, but does not tell"))]
    pub method: Method,
    pub path: &'static str,
    /// The only listeners that serve it.
    pub listeners: &'static [Listener],
    /// The permission that a caller needs.
    pub needs: Needs,
    is_noted: bool,
    answer: MethodRouter<App>,
}

/// Every route except the registry's. The registry has a specification of its own: its routes are guarded in
/// `registry` and served on the admin listener and, for pulls, on the node listener. Tests compare this table with
/// `api::openapi`: each route here is described there, and the reverse.
pub fn routes() -> Vec<Route> {
    use Needs::{AdminOrWebhook, Attempt, Nothing};
    const READER: Needs = Needs::Role(Role::Reader);
    const OPERATOR: Needs = Needs::Role(Role::Operator);
    const ADMIN: Needs = Needs::Role(Role::Admin);
    vec![
        admin(Method::POST, "/api/v1/jobs", OPERATOR, jobs::create),
        admin(Method::GET, "/api/v1/jobs", READER, jobs::list),
        admin(Method::GET, "/api/v1/jobs/{id}", READER, jobs::show),
        admin(Method::GET, "/api/v1/jobs/{id}/events", READER, jobs::events),
        admin(Method::POST, "/api/v1/jobs/{id}/cancel", OPERATOR, jobs::cancel),
        admin(Method::GET, "/api/v1/jobs/{id}/evidence", READER, jobs::evidence),
        admin(Method::GET, "/api/v1/servers", READER, servers::list),
        admin(Method::GET, "/api/v1/servers/{serial}", READER, servers::show),
        admin(Method::PUT, "/api/v1/servers/{serial}", ADMIN, servers::put),
        admin(Method::DELETE, "/api/v1/servers/{serial}", ADMIN, servers::delete),
        admin(Method::POST, "/api/v1/servers/{serial}/probe", OPERATOR, servers::probe),
        admin(Method::POST, "/api/v1/servers/{serial}/actions/power", OPERATOR, actions::power),
        admin(Method::POST, "/api/v1/servers/{serial}/actions/boot", OPERATOR, actions::boot),
        admin(Method::GET, "/api/v1/servers/{serial}/capture", OPERATOR, capture::capture),
        admin(Method::GET, "/api/v1/servers/{serial}/firmware", OPERATOR, firmware::list),
        admin(Method::POST, "/api/v1/servers/{serial}/firmware", OPERATOR, firmware::update)
            .without_limit(),
        admin(Method::GET, "/api/v1/servers/{serial}/firmware/update", READER, firmware::show),
        admin(Method::GET, "/api/v1/artifacts", READER, artifacts::list),
        admin(Method::GET, "/api/v1/artifacts/uploads", ADMIN, artifacts::uploads),
        admin(Method::DELETE, "/api/v1/artifacts/uploads/{id}", ADMIN, artifacts::cancel_upload),
        admin(Method::POST, "/api/v1/artifacts/gc", ADMIN, artifacts::collect).without_limit(),
        admin(Method::POST, "/api/v1/artifacts/scrub", ADMIN, artifacts::scrub).without_limit(),
        admin(Method::GET, "/api/v1/artifacts/export", ADMIN, artifacts::export).without_limit(),
        admin(Method::POST, "/api/v1/artifacts/import", ADMIN, artifacts::import).without_limit(),
        admin(Method::GET, "/api/v1/tokens", ADMIN, access::list),
        admin(Method::POST, "/api/v1/tokens", ADMIN, access::create),
        admin(Method::DELETE, "/api/v1/tokens/{id}", ADMIN, access::revoke),
        admin(Method::GET, "/api/v1/audit", ADMIN, access::audit),
        admin(Method::POST, "/api/v1/status-webhook/{serial}", AdminOrWebhook, webhook::receive)
            .also_for_machines(),
        node(Method::POST, "/api/v1/node/attempts/{id}/hello", Attempt, node::hello),
        node(Method::GET, "/api/v1/node/attempts/{id}/recipe", Attempt, node::recipe),
        node(Method::POST, "/api/v1/node/attempts/{id}/permit", Attempt, node::permit),
        node(Method::POST, "/api/v1/node/attempts/{id}/progress", Attempt, node::progress)
            .without_note(),
        node(Method::POST, "/api/v1/node/attempts/{id}/log", Attempt, node::log).without_note(),
        node(Method::POST, "/api/v1/node/attempts/{id}/result", Attempt, node::result),
        media(Method::GET, "/m/{token}/{name}", Nothing, media::serve),
        media(Method::HEAD, "/m/{token}/{name}", Nothing, media::serve),
        admin(Method::GET, "/healthz", Nothing, health::healthz),
        admin(Method::GET, "/openapi.json", Nothing, about::openapi),
        admin(Method::GET, "/about/licenses", Nothing, about::licenses),
    ]
}

// Each entry of the table is made by one of these three, so no route lacks a listener or a permission.

fn admin<H, T>(method: Method, path: &'static str, needs: Needs, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    route(&[Listener::Admin], method, path, needs, handler)
}

fn node<H, T>(method: Method, path: &'static str, needs: Needs, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    route(&[Listener::Node], method, path, needs, handler)
}

fn media<H, T>(method: Method, path: &'static str, needs: Needs, handler: H) -> Route
where
    H: Handler<T, App>,
    T: 'static,
{
    route(&[Listener::Media], method, path, needs, handler)
}

fn route<H: Handler<T, App>, T: 'static>(
    listeners: &'static [Listener],
    method: Method,
    path: &'static str,
    needs: Needs,
    handler: H,
) -> Route {
    let filter = MethodFilter::try_from(method.clone()).expect("the table has axum's methods only");
    let is_noted = may_change(&method);
    Route { method, path, listeners, needs, is_noted, answer: on(filter, handler) }
}

impl Route {
    /// Some installers call back from the machines' network, ESXi's for example.
    fn also_for_machines(mut self) -> Route {
        self.listeners = &[Listener::Admin, Listener::Node];
        self
    }

    /// Accepts bodies larger than [`BODY_BYTES_MAX`].
    fn without_limit(mut self) -> Route {
        self.answer = self.answer.route_layer(DefaultBodyLimit::disable());
        self
    }

    /// Writes no audit entries: requests only add to a job's events, which record them, and there are many of them.
    fn without_note(mut self) -> Route {
        self.is_noted = false;
        self
    }
}

/// Builds the routes of these listeners, and no others.
pub fn router(app: App, serves: &[Listener]) -> Router {
    let mut router = Router::new();
    let here = |route: &Route| route.listeners.iter().any(|one| serves.contains(one));
    for Route { method: _, path, listeners, needs, is_noted, answer } in
        routes().into_iter().filter(here)
    {
        let gate = Gate { app: app.clone(), needs, path, is_noted };
        let answer = match needs {
            Needs::Nothing => answer,
            Needs::Role(_) | Needs::AdminOrWebhook | Needs::Attempt => answer
                .route_layer(map_response_with_state(app.answers.clone(), answers::bounded))
                .route_layer(from_fn_with_state(gate, guard)),
        };
        let answer = match listeners {
            // A BMC may cache what it reads of a medium.
            [Listener::Media] => answer,
            _ => answer.layer(map_response(headers::not_stored)),
        };
        router = router.route(path, answer);
    }
    let router = router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .fallback(async || no_such_path())
        .method_not_allowed_fallback(async || {
            refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "method",
                "method not allowed",
                "this path takes other methods",
            )
        })
        .with_state(app.clone());
    let router = match Callers::of(serves) {
        None => router,
        Some(callers) => {
            let registry = ::registry::router(app.registry.clone())
                .layer(map_response_with_state(app.answers.clone(), answers::bounded));
            let gate = RegistryGate { app, callers };
            router.merge(registry.layer(from_fn_with_state(gate, registry::authorize)))
        }
    };
    router.layer(map_response(headers::for_browsers)).layer(map_request(linger::watch))
}
