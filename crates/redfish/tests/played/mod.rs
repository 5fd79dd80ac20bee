// SPDX-License-Identifier: AGPL-3.0-or-later
//! A simulated BMC with few resources, over TLS with its own CA. Each test says where it misbehaves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::Url;

/// A received request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// The same, with its final slash.
    pub written: String,
    pub token: Option<String>,
    /// `user:password` of Basic.
    pub basic: Option<String>,
    pub if_match: Option<String>,
    pub body: Value,
    /// The body if it is not JSON.
    pub text: String,
}

/// A reply other than the normal one.
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
    drips: bool,
    raw: Option<Vec<u8>>,
}

pub fn reply(status: u16, body: Value) -> Reply {
    Reply { status, headers: Vec::new(), body, drips: false, raw: None }
}

/// A reply with these bytes as its body.
pub fn raw(status: u16, bytes: impl Into<Vec<u8>>) -> Reply {
    Reply { raw: Some(bytes.into()), ..reply(status, Value::Null) }
}

/// A reply that arrives byte by byte and never ends.
pub fn drip() -> Reply {
    Reply { drips: true, ..reply(200, Value::Null) }
}

fn drops() -> Body {
    let drops = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, std::convert::Infallible>(" "), ()))
    });
    Body::from_stream(drops)
}

impl Reply {
    pub fn header(mut self, name: &'static str, value: &str) -> Reply {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap();
        let mut response = match self.body {
            _ if self.drips => (status, drops()).into_response(),
            _ if self.raw.is_some() => {
                (status, Body::from(self.raw.unwrap_or_default())).into_response()
            }
            Value::Null => status.into_response(),
            body => (status, axum::Json(body)).into_response(),
        };
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    }
}

/// The state of the machine.
pub struct Machine {
    pub is_on: bool,
    pub boot: Value,
    pub slots: [Option<String>; 2],
    /// The reset types that the BMC lists; an empty list is left out.
    pub reset_types: Value,
    /// The reset types of accepted requests.
    pub resets: Vec<String>,
    /// Accepts a change of the boot mode without effect.
    pub keeps_legacy: bool,
    /// Shows each override as `Continuous`.
    pub shows_continuous: bool,
    /// The status for a path without a final slash, if all links have one.
    pub without_slash: Option<u16>,
    /// Additional properties of resources, by their paths.
    pub said: BTreeMap<&'static str, Value>,
    /// The BMC's own attributes, and the settings of the next boot.
    pub attributes: Value,
    pub future_boot: Value,
    sessions: u32,
}

type Misbehaviour = dyn Fn(&Seen, usize) -> Option<Reply> + Send + Sync;

#[derive(Clone)]
pub struct Bmc {
    pub url: Url,
    pub ca_pem: String,
    pub pin: [u8; 32],
    seen: Arc<Mutex<Vec<Seen>>>,
    machine: Arc<Mutex<Machine>>,
    misbehaviour: Arc<Misbehaviour>,
}

impl Bmc {
    pub async fn start(
        misbehaviour: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Bmc {
        // Another test may have installed the same provider already.
        let _already = rustls::crypto::ring::default_provider().install_default();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::default();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::new(ca, ca_key))
            .unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.der());
        let tls = axum_server::tls_rustls::RustlsConfig::from_pem(
            certificate.pem().into_bytes(),
            key.serialize_pem().into_bytes(),
        )
        .await
        .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let bmc = Bmc {
            url: Url::parse(&format!("https://{address}")).unwrap(),
            ca_pem,
            pin: digest.as_ref().try_into().unwrap(),
            seen: Arc::default(),
            machine: Arc::new(Mutex::new(Machine {
                is_on: false,
                boot: json!({"BootSourceOverrideEnabled": "Disabled",
                    "BootSourceOverrideTarget": "None", "BootSourceOverrideMode": "Legacy"}),
                slots: [None, None],
                reset_types: json!(["On", "ForceOff", "GracefulShutdown"]),
                resets: Vec::new(),
                keeps_legacy: false,
                shows_continuous: false,
                without_slash: None,
                said: BTreeMap::new(),
                attributes: json!({}),
                future_boot: json!({}),
                sessions: 0,
            })),
            misbehaviour: Arc::new(misbehaviour),
        };
        let router = Router::new().fallback(answer).with_state(bmc.clone());
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(server.serve(router.into_make_service()));
        bmc
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn state(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    pub fn count(&self, method: &str, path: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.method == method && seen.path == path).count()
    }
}

async fn answer(State(bmc): State<Bmc>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    };
    let basic = text(&parts.headers, header::AUTHORIZATION.as_str())
        .map(|value| STANDARD.decode(value.strip_prefix("Basic ").unwrap()).unwrap())
        .map(|value| String::from_utf8(value).unwrap());
    let seen = Seen {
        method: parts.method.to_string(),
        path: parts.uri.path().trim_end_matches('/').to_owned(),
        written: parts.uri.path().to_owned(),
        token: text(&parts.headers, "x-auth-token"),
        basic,
        if_match: text(&parts.headers, "if-match"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        text: String::from_utf8_lossy(&body).into_owned(),
    };
    bmc.seen.lock().unwrap().push(seen.clone());
    let nth = bmc.count(&seen.method, &seen.path);
    match (bmc.misbehaviour)(&seen, nth) {
        // The normal reply, with these headers.
        Some(Reply { status: 0, headers, .. }) => {
            let usual = behave(&bmc, &seen);
            Reply { headers: [usual.headers, headers].concat(), ..usual }.into_response()
        }
        Some(reply) => reply.into_response(),
        None => behave(&bmc, &seen).into_response(),
    }
}

fn behave(bmc: &Bmc, seen: &Seen) -> Reply {
    let Some(status) = bmc.state().without_slash else { return behave_plainly(bmc, seen) };
    if !seen.written.ends_with('/') {
        return reply(status, json!({})).header("location", &format!("{}/", seen.written));
    }
    let mut usual = behave_plainly(bmc, seen);
    add_slashes(&mut usual.body);
    for (name, value) in &mut usual.headers {
        if *name == "location" {
            value.push('/');
        }
    }
    usual
}

fn add_slashes(body: &mut Value) {
    match body {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(link) if matches!(name.as_str(), "@odata.id" | "target") => {
                        link.push('/');
                    }
                    value => add_slashes(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(add_slashes),
        _ => {}
    }
}

fn behave_plainly(bmc: &Bmc, seen: &Seen) -> Reply {
    let mut machine = bmc.machine.lock().unwrap();
    let is_open = seen.path == "/redfish/v1" || seen.path.ends_with("/Sessions");
    if !is_open && seen.token.is_none() && seen.basic.is_none() {
        return reply(401, json!({}));
    }
    let path = seen.path.as_str();
    let slot_number = usize::from(path.contains("/VirtualMedia/2"));
    match seen.method.as_str() {
        "GET" => match resource(path, &machine) {
            Some(mut body) => {
                let said = machine.said.get(path).and_then(Value::as_object);
                for (name, value) in said.into_iter().flatten() {
                    body[name] = value.clone();
                }
                reply(200, body)
            }
            None => reply(404, json!({})),
        },
        "PATCH" if path.ends_with("/Attributes") => {
            merge(&mut machine.attributes, &seen.body["Attributes"]);
            reply(204, Value::Null)
        }
        "PATCH" if path.ends_with("/SD") => {
            merge(&mut machine.future_boot, &seen.body["Boot"]);
            reply(204, Value::Null)
        }
        "PATCH" if path.contains("/VirtualMedia/") => {
            machine.slots[slot_number] = seen.body["Image"].as_str().map(str::to_owned);
            reply(204, Value::Null)
        }
        "PATCH" => {
            merge(&mut machine.boot, &seen.body["Boot"]);
            if machine.shows_continuous {
                machine.boot["BootSourceOverrideEnabled"] = "Continuous".into();
            }
            if machine.keeps_legacy {
                machine.boot["BootSourceOverrideMode"] = "Legacy".into();
            }
            reply(204, Value::Null)
        }
        "POST" if path.ends_with("/Sessions") => {
            if seen.body["Password"] != "p" {
                return reply(401, json!({}));
            }
            machine.sessions += 1;
            let location = format!("{path}/{}", machine.sessions);
            reply(201, json!({}))
                .header("x-auth-token", &format!("token-{}", machine.sessions))
                .header("location", &location)
        }
        "POST" if path.ends_with("InsertMedia") => {
            machine.slots[slot_number] = seen.body["Image"].as_str().map(str::to_owned);
            reply(204, Value::Null)
        }
        "POST" if path.ends_with("EjectMedia") => {
            machine.slots[slot_number] = None;
            reply(204, Value::Null)
        }
        "POST" if path.ends_with("ComputerSystem.Reset") => {
            let kind = seen.body["ResetType"].as_str().unwrap().to_owned();
            machine.is_on = match kind.as_str() {
                "On" | "ForceOn" => true,
                "GracefulRestart" | "ForceRestart" | "PowerCycle" => machine.is_on,
                "PushPowerButton" => !machine.is_on,
                _ => false,
            };
            machine.resets.push(kind);
            reply(204, Value::Null)
        }
        "DELETE" => reply(204, Value::Null),
        _ => reply(405, json!({})),
    }
}

fn merge(into: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        into[name] = value.clone();
    }
}

fn resource(path: &str, machine: &Machine) -> Option<Value> {
    let link = |path: &str| json!({"@odata.id": path});
    let media = "/redfish/v1/Managers/1/VirtualMedia";
    Some(match path {
        "/redfish/v1" => json!({
            "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
            "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")}
        }),
        "/redfish/v1/Systems" => json!({"Members": [link("/redfish/v1/Systems/1")]}),
        "/redfish/v1/Systems/1" => {
            let mut reset = json!({"target": format!("{path}/Actions/ComputerSystem.Reset")});
            if machine.reset_types != json!([]) {
                reset["ResetType@Redfish.AllowableValues"] = machine.reset_types.clone();
            }
            json!({
                "@odata.id": path, "SerialNumber": "SN1", "Manufacturer": "Test",
                "Model": "Played", "PowerState": if machine.is_on { "On" } else { "Off" },
                "Boot": machine.boot, "Links": {"ManagedBy": [link("/redfish/v1/Managers/1")]},
                "Actions": {"#ComputerSystem.Reset": reset}
            })
        }
        "/redfish/v1/Managers" => json!({"Members": [link("/redfish/v1/Managers/1")]}),
        "/redfish/v1/Managers/1/Attributes" => json!({"Attributes": machine.attributes}),
        "/redfish/v1/Systems/1/SD" => json!({"Boot": machine.future_boot}),
        "/redfish/v1/Managers/1" => json!({"@odata.id": path, "VirtualMedia": link(media)}),
        path if path == media => {
            json!({"Members": [link(&format!("{media}/1")), link(&format!("{media}/2"))]})
        }
        path if path == format!("{media}/1") => slot(path, machine.slots[0].as_deref()),
        path if path == format!("{media}/2") => slot(path, machine.slots[1].as_deref()),
        _ => return None,
    })
}

/// A media slot as the BMC shows it.
pub fn slot(path: &str, image: Option<&str>) -> Value {
    json!({
        "@odata.id": path, "MediaTypes": ["CD", "DVD"], "Image": image,
        "Inserted": image.is_some(),
        "Actions": {
            "#VirtualMedia.InsertMedia": {"target": format!("{path}/Actions/VirtualMedia.InsertMedia")},
            "#VirtualMedia.EjectMedia": {"target": format!("{path}/Actions/VirtualMedia.EjectMedia")}
        }
    })
}
