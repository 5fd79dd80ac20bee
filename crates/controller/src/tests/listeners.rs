// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the listeners: every route is called at every listener, a job runs with separate listeners for its machine,
//! its BMC and people, and the headers that all responses have in common are checked.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use tower::ServiceExt;

use super::bmc::{Bmc, Play};
use super::jobs::{create, is_complete};
use super::{Controller, temp_dir};
use crate::http::{self, App, Needs, Route};
use crate::settings::listeners::Listener;

/// The combinations of listeners that a socket may have.
const SOCKETS: [&[Listener]; 7] = [
    &[Listener::Admin],
    &[Listener::Node],
    &[Listener::Media],
    &[Listener::Admin, Listener::Node],
    &[Listener::Admin, Listener::Media],
    &[Listener::Node, Listener::Media],
    &Listener::ALL,
];

struct Heard {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Heard {
    /// Whether the response is that of an unknown path at this listener. The response to a HEAD has no body.
    fn is_no_such_path(&self, method: &Method) -> bool {
        self.status == 404 && (*method == Method::HEAD || self.body.contains(":no-such-path\""))
    }
}

async fn ask(router: &Router, request: Request<Body>) -> Heard {
    let answer = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    // Enough for the longest response, the licences.
    let body = axum::body::to_bytes(body, 8 << 20).await.unwrap();
    let body = String::from_utf8_lossy(&body).into_owned();
    Heard { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn request(method: &Method, path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).unwrap()
}

/// A path of the route. The path of a media route leads to an existing medium.
fn path_of(route: &Route, app: &App) -> String {
    match route.listeners {
        [Listener::Media] => {
            let token = app.keys.media_token().unwrap();
            // The probe exists as long as its handle does.
            std::mem::forget(app.bmcs.probes.open(&token).unwrap());
            format!("/m/{token}/probe.iso")
        }
        _ => route.path.replace(['{', '}'], ""),
    }
}

#[tokio::test]
async fn every_route_is_at_its_listener_and_nowhere_else() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let admin = controller.admin_token();
    let mut cells = 0;
    for serves in SOCKETS {
        let router = http::router(controller.app.clone(), serves);
        for route in http::routes() {
            let name = format!("{} {} at {serves:?}", route.method, route.path);
            // Listed here again, so that a mistake in the table of routes fails the test.
            let own = match route.path {
                path if path.starts_with("/api/v1/node/") => &[Listener::Node][..],
                path if path.starts_with("/m/") => &[Listener::Media],
                path if path.starts_with("/api/v1/status-webhook/") => {
                    &[Listener::Admin, Listener::Node]
                }
                _ => &[Listener::Admin],
            };
            assert_eq!(route.listeners, own, "{name}");
            let path = path_of(&route, &controller.app);
            for token in [None, Some(admin.as_str())] {
                let heard = ask(&router, request(&route.method, &path, token)).await;
                let is_here = own.iter().any(|one| serves.contains(one));
                assert_eq!(
                    heard.is_no_such_path(&route.method),
                    !is_here,
                    "{name}: {}",
                    heard.body
                );
                if is_here && token.is_none() {
                    let expected = if route.needs == Needs::Nothing { 200 } else { 401 };
                    assert_eq!(heard.status, expected, "{name}");
                }
                cells += 1;
            }
        }
    }
    println!("listeners: {cells} cells");
    assert!(cells >= 37 * 2 * 7, "{cells}");
}

#[tokio::test]
async fn the_registry_knows_people_at_theirs_and_machines_at_theirs() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let bmc = Bmc::start("SN1", Play::Dead).await;
    let job = create(&controller, &bmc).await;
    let attempt = controller.app.store.job(&job).await.unwrap().attempt;
    let (admin, machine) = (controller.admin_token(), controller.app.keys.pull_token(&attempt));
    for serves in SOCKETS {
        let router = http::router(controller.app.clone(), serves);
        let (people, machines) =
            (serves.contains(&Listener::Admin), serves.contains(&Listener::Node));
        for (token, counts) in [(&admin, people), (&machine, machines)] {
            let heard = ask(&router, request(&Method::GET, "/v2/", Some(token))).await;
            let expected = match (people || machines, counts) {
                (false, _) => 404,
                (true, false) => 401,
                (true, true) => 200,
            };
            assert_eq!(heard.status, expected, "at {serves:?}: {}", heard.body);
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            for token in [None, Some(&*admin), Some(&*machine)] {
                let heard = ask(&router, request(&method, "/v2/a/blobs/uploads/", token)).await;
                assert_eq!(heard.is_no_such_path(&method), !people, "{method} at {serves:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_job_goes_to_its_end_over_three_listeners() {
    let dir = temp_dir();
    let controller = Controller::start_apart(dir.path()).await;
    let settings = &controller.app.settings;
    let (node, media) = (settings.node_url.to_string(), settings.media_url.to_string());
    let admin = format!("{}/", controller.url);
    assert!(node != media && node != admin && media != admin);
    let bmc = Bmc::start("SN1", Play::Succeed).await;
    let id = create(&controller, &bmc).await;
    let job = controller.job_when(&id, is_complete).await;
    assert_eq!(job["outcome"], "succeeded", "{job:#}");
    let urls = bmc.seen.lock().unwrap().urls.clone();
    assert!(!urls.is_empty());
    for url in urls {
        // The URL no longer works at its listener, and never worked at another.
        assert_eq!(reqwest::get(&url).await.unwrap().status(), 410, "{url}");
        for other in [&node, &admin] {
            let elsewhere = url.replacen(&media, other, 1);
            assert_ne!(elsewhere, url, "the BMC was sent to {url}");
            assert_eq!(reqwest::get(elsewhere).await.unwrap().status(), 404);
        }
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_to_keep_off() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let admin = controller.admin_token();
    let router = http::router(controller.app.clone(), &Listener::ALL);
    let mut asked: Vec<(Method, String)> = http::routes()
        .iter()
        .map(|route| (route.method.clone(), path_of(route, &controller.app)))
        .collect();
    asked.push((Method::GET, "/v2/".into()));
    asked.push((Method::GET, "/v2/a/manifests/1".into()));
    asked.push((Method::GET, "/no/such/path".into()));
    asked.push((Method::PUT, "/healthz".into()));
    for (method, path) in asked {
        for token in [None, Some(admin.as_str())] {
            let heard = ask(&router, request(&method, &path, token)).await;
            let has = |name: &str| heard.headers.get(name).map(|value| value.to_str().unwrap());
            let name = format!("{method} {path} {}", heard.status);
            assert_eq!(has("x-content-type-options"), Some("nosniff"), "{name}");
            let policy = "default-src 'none'; frame-ancestors 'none'";
            assert_eq!(has("content-security-policy"), Some(policy), "{name}");
            assert_eq!(has("referrer-policy"), Some("no-referrer"), "{name}");
            assert_eq!(has("set-cookie"), None, "{name}");
            // Clients of the registry may cache content that is named by its digest; media set the header themselves.
            let kept = if path.starts_with("/v2/") { None } else { Some("no-store") };
            assert_eq!(has("cache-control"), kept, "{name}");
        }
    }
}

/// Nothing that a browser sends by itself, or lets another site's page send, counts as a credential. So such a page
/// cannot act in the name of its visitor.
#[tokio::test]
async fn no_cookie_form_or_query_is_a_credential() {
    let dir = temp_dir();
    let controller = Controller::start(dir.path()).await;
    let admin = controller.admin_token();
    let router = http::router(controller.app.clone(), &Listener::ALL);
    let form = format!("token={admin}&access_token={admin}&password={admin}&authorization={admin}");
    let cookie = form.replace('&', "; ");
    let mut routes: Vec<(Method, String)> = http::routes()
        .iter()
        .filter(|route| route.needs != Needs::Nothing)
        .map(|route| (route.method.clone(), path_of(route, &controller.app)))
        .collect();
    routes.extend([Method::GET, Method::DELETE].map(|method| (method, "/v2/a/tags/list".into())));
    let basic = reqwest::Client::new().get("http://x").basic_auth("admin", Some(&admin)).build();
    let basic = basic.unwrap().headers()["authorization"].clone();
    for (method, path) in &routes {
        let ask = async |change: &dyn Fn(&mut Request<Body>)| {
            let mut request = request(method, &format!("{path}?{form}"), None);
            *request.body_mut() = Body::from(form.clone());
            let headers = request.headers_mut();
            headers.insert("cookie", cookie.parse().unwrap());
            headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
            change(&mut request);
            StatusCode::from_u16(ask(&router, request).await.status).unwrap()
        };
        assert_eq!(ask(&|_request| {}).await, 401, "{method} {path}");
        // A browser that was once asked for a password sends it again with the requests of any page.
        for (site, is_refused) in
            [("cross-site", true), ("same-site", true), ("same-origin", false), ("none", false)]
        {
            let by_page = |request: &mut Request<Body>| {
                request.headers_mut().insert("authorization", basic.clone());
                request.headers_mut().insert("sec-fetch-site", site.parse().unwrap());
            };
            let status = ask(&by_page).await;
            let is_node = path.starts_with("/api/v1/node/");
            assert_eq!(status == 401, is_refused || is_node, "{method} {path} {site}: {status}");
        }
    }
}
