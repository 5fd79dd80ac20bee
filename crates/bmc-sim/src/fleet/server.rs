// SPDX-License-Identifier: AGPL-3.0-or-later
//! The server: one listener for the whole fleet. The address that a client connects to selects the BMC.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::bmc::Bmc;
use super::fault::{Expected, Fault};
use super::left::Left;
use super::profile::Profile;
use super::profile::quirk::{Certificate, Quirk};
use super::reply::{Manner, Reply, Request};
use super::shared::{Settings, Shared};
use super::{STRANGER, Wanted, address, index_of, wire};
use crate::tls;

/// Requests are small, except those with a firmware image.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// The pause between two bytes of a BMC that drips, on real hardware.
const DRIP_PAUSE: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted: clients may connect to the whole fleet at once.
const BACKLOG: u32 = 4096;

/// A running fleet.
pub struct Fleet {
    pub certificate_sha256: String,
    /// The fingerprint of the BMCs with a certificate of X.509 version 1.
    first_version_sha256: String,
    pub port: u16,
    shared: Arc<Shared>,
    bmcs: Arc<Vec<Arc<Bmc>>>,
    task: JoinHandle<()>,
}

/// One BMC, in the form that users of the fleet get.
#[derive(Debug, Serialize)]
pub struct Member {
    pub serial: String,
    pub url: String,
    /// The certificate before any fault has changed it.
    pub certificate_sha256: String,
    pub profile: &'static str,
    pub fault: &'static str,
    pub expected_outcome: &'static str,
    /// The beginning that `failed_step` must have.
    pub expected_step: Option<&'static str>,
    /// The beginning that `cleanup_problem` must have.
    pub expected_problem: Option<&'static str>,
    /// A text that the reason must contain.
    pub expected_words: Option<&'static str>,
    /// The job permits ejecting foreign media.
    pub eject_foreign: bool,
    /// Why the controller cannot be expected to support this BMC yet.
    pub gap: Option<&'static str>,
}

/// What is left at one BMC, as text.
#[derive(Debug, Serialize)]
pub struct LeftAt {
    pub serial: String,
    pub wrong: Vec<String>,
}

/// The observations of the fleet.
#[derive(Debug, Serialize)]
pub struct Report {
    pub writes: u64,
    /// Events that must never happen, as text.
    pub wrongful: Vec<String>,
    /// The sum over all BMCs.
    pub sessions_left: usize,
    pub logins_refused_max: u32,
    pub media_left: usize,
    /// Everything that a client could have put back at a BMC and did not.
    pub left: Vec<LeftAt>,
    /// Tokens of media and of attempts, and the beginnings of session tokens.
    pub secrets: Vec<String>,
}

impl Fleet {
    pub async fn start(settings: Settings, wanted: &[Wanted]) -> anyhow::Result<Fleet> {
        let (own, other) = (settings.work_dir.join("bmc"), settings.work_dir.join("stranger"));
        for dir in [&own, &other] {
            std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let identity = tls::load_or_make(&own, local)?;
        let swapped = tls::load_or_make(&other, local)?;
        let first_version = tls::make_version_1().context("make a certificate of version 1")?;
        let listener = listen(settings.port)?;
        let port = listener.local_addr().context("read the listener's address")?.port();
        let shared = Arc::new(Shared::new(settings, port)?);
        let bmcs = wanted.iter().enumerate().map(|(index, wanted)| {
            let serial = serial(index, wanted.profile);
            let uuid = uuid::Uuid::from_u128(index as u128 + 1);
            Arc::new(Bmc::new(serial, uuid.to_string(), wanted.profile, wanted.fault))
        });
        let bmcs: Arc<Vec<Arc<Bmc>>> = Arc::new(bmcs.collect());
        let certificates = Certificates {
            own: TlsAcceptor::from(identity.config),
            swapped: TlsAcceptor::from(swapped.config),
            first_version: TlsAcceptor::from(first_version.config),
        };
        let task = tokio::spawn(accept(listener, certificates, shared.clone(), bmcs.clone()));
        Ok(Fleet {
            certificate_sha256: identity.certificate_sha256,
            first_version_sha256: first_version.certificate_sha256,
            port,
            shared,
            bmcs,
            task,
        })
    }

    pub fn members(&self) -> Vec<Member> {
        let members = self.bmcs.iter().enumerate().map(|(index, bmc)| {
            let (outcome, step, problem) = match bmc.fault.expected_on(bmc.profile) {
                Expected::Succeeds => ("succeeded", None, None),
                Expected::SucceedsWithProblem(problem) => ("succeeded", None, Some(problem)),
                Expected::Fails(step) => ("failed", Some(step), None),
            };
            Member {
                serial: bmc.serial.clone(),
                url: format!("https://{}:{}", address(index), self.port),
                certificate_sha256: match bmc.profile.certificate() {
                    Some(Certificate::V1) => self.first_version_sha256.clone(),
                    None => self.certificate_sha256.clone(),
                },
                profile: bmc.profile.name,
                fault: bmc.fault.name(),
                expected_outcome: outcome,
                expected_step: step,
                expected_problem: problem,
                expected_words: bmc.fault.expected_words(bmc.profile),
                eject_foreign: bmc.fault.permits_to_eject(),
                gap: bmc.profile.gap,
            }
        });
        members.collect()
    }

    pub fn report(&self) -> Report {
        let left: Vec<_> = {
            let ledger = self.shared.ledger();
            self.bmcs.iter().map(|bmc| bmc.left(ledger.has_granted(&bmc.serial))).collect()
        };
        let with_serials = self.bmcs.iter().zip(&left);
        let wrong = with_serials.filter(|(_, left)| !left.wrong.is_empty());
        let left_at = |(bmc, left): (&Arc<Bmc>, &Left)| LeftAt {
            serial: bmc.serial.clone(),
            wrong: left.wrong.clone(),
        };
        let confided = self.shared.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = self.bmcs.iter().map(|bmc| bmc.session_secret());
        let secrets = confided.iter().cloned().chain(sessions).collect();
        let ledger = self.shared.ledger();
        Report {
            secrets,
            writes: ledger.writes(),
            wrongful: ledger.wrongful().to_vec(),
            sessions_left: left.iter().map(|left| left.sessions).sum(),
            logins_refused_max: left.iter().map(|left| left.logins_refused).max().unwrap_or(0),
            media_left: left.iter().map(|left| left.media).sum(),
            left: wrong.map(left_at).collect(),
        }
    }

    /// Stops accepting connections.
    pub fn stop(self) {
        self.task.abort();
    }
}

/// A serial for a BMC. A service tag has seven characters.
fn serial(index: usize, profile: &Profile) -> String {
    match profile.has(Quirk::ServiceTag) {
        true => format!("F{index:06}"),
        false => format!("FLEET{index:05}"),
    }
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let socket = tokio::net::TcpSocket::new_v4().context("make a socket")?;
    socket.set_reuseaddr(true).context("set up a socket")?;
    // Binds every address, because each BMC has its own in 127.0.0.0/8. Clients of other addresses are not served.
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into()).context("bind the fleet's port")?;
    socket.listen(BACKLOG).context("listen")
}

#[derive(Clone)]
struct Certificates {
    own: TlsAcceptor,
    swapped: TlsAcceptor,
    first_version: TlsAcceptor,
}

async fn accept(
    listener: TcpListener,
    certificates: Certificates,
    shared: Arc<Shared>,
    bmcs: Arc<Vec<Arc<Bmc>>>,
) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // There are no file descriptors left. Some will be closed soon.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(IpAddr::V4(own)) = stream.local_addr().map(|address| address.ip()) else { continue };
        if !peer.ip().is_loopback() || !own.is_loopback() {
            continue;
        }
        if own == STRANGER {
            shared.ledger().wrong("a client followed a BMC to another host".into());
            continue;
        }
        let Some(bmc) = index_of(own).and_then(|index| bmcs.get(index)) else { continue };
        let acceptor = match (bmc.fault, bmc.profile.certificate()) {
            (Fault::CertSwap, _) => certificates.swapped.clone(),
            (_, Some(Certificate::V1)) => certificates.first_version.clone(),
            (_, None) => certificates.own.clone(),
        };
        tokio::spawn(serve(stream, acceptor, bmc.clone(), shared.clone()));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, bmc: Arc<Bmc>, shared: Arc<Shared>) {
    // Nagle's delay would be the greater part of a response's time.
    let _without = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| answer(&bmc, &shared, request));
    // It does not matter here how a connection ends.
    let _ended = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    bmc: &Arc<Bmc>,
    shared: &Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> io::Result<hyper::Response<Body>> {
    let request = read(request).await?;
    if bmc.fault == Fault::CertSwap && (request.token.is_some() || !request.body.is_null()) {
        shared.ledger().wrong(format!("{}: a secret for a changed certificate", bmc.serial));
    }
    if !shared.settings.latency.is_zero() {
        tokio::time::sleep(shared.settings.latency).await;
    }
    let mut reply = bmc.answer(shared, &request);
    if let Some((slot, url)) = reply.prefetch.take() {
        // It downloads first, and responds then.
        let copy = copy_of(shared, &url).await;
        bmc.keep_copy(slot, &url, copy);
    }
    if let Some(url) = reply.fetch.take() {
        let (bmc, shared) = (bmc.clone(), shared.clone());
        tokio::spawn(async move { bmc.fetched(&shared, &copy_of(&shared, &url).await) });
    }
    let reply = wire::dressed(bmc.profile, &request, reply).map_err(io::Error::other)?;
    send(reply, shared).await
}

async fn read(request: hyper::Request<Incoming>) -> io::Result<Request> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    Ok(Request::of(&head, body.to_bytes()))
}

async fn copy_of(shared: &Shared, url: &str) -> Vec<u8> {
    const PIECE: u64 = 1 << 20;
    let mut copy = Vec::new();
    loop {
        let start = copy.len() as u64;
        let Some(piece) = shared.read(url, start..start + PIECE).await else { return copy };
        copy.extend_from_slice(&piece);
        if (piece.len() as u64) < PIECE {
            return copy;
        }
    }
}

async fn send(reply: Reply, shared: &Shared) -> io::Result<hyper::Response<Body>> {
    let mut response = hyper::Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, value);
    }
    let body = match reply.manner {
        Manner::Whole => Body::from(reply.body),
        Manner::Never => std::future::pending().await,
        Manner::Dropped => return Err(io::Error::other("the BMC is away")),
        Manner::Drip => dripping(reply.body, shared.scaled(DRIP_PAUSE)),
        Manner::Cut => {
            response = response.header("content-length", reply.body.len());
            let half = Bytes::from(reply.body[..reply.body.len() / 2].to_vec());
            let cut = stream::once(async { Err(io::Error::other("cut")) });
            Body::from_stream(stream::iter([Ok(half)]).chain(cut))
        }
    };
    response.body(body).map_err(io::Error::other)
}

fn dripping(body: Vec<u8>, pause: Duration) -> Body {
    Body::from_stream(stream::iter(body).then(move |byte| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(Bytes::from(vec![byte]))
    }))
}
