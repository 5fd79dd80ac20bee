// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the TLS listener as clients see it: only HTTP/1.1.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use api::access::Role;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned};
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, settings, temp_dir};
use crate::access::clients;
use crate::http;
use crate::serve::{build, install_crypto};
use crate::settings::listeners::{Listener, Socket};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
const HEALTH_KEPT: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
/// How HTTP/2 begins: the preface and an empty SETTINGS frame (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a client received.
struct Heard {
    protocol: Option<Vec<u8>>,
    answer: Vec<u8>,
    /// The names of the CAs in the server's request for a certificate; `None` if there was no request.
    asked_of: Option<Vec<Vec<u8>>>,
}

/// A client that records which certificates are requested, and presents none.
#[derive(Debug, Default)]
struct Silent(Mutex<Option<Vec<Vec<u8>>>>);

impl ResolvesClientCert for Silent {
    fn resolve(&self, asked: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().unwrap() = Some(asked.iter().map(|name| name.to_vec()).collect());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Offers these protocols, sends `request`, and reads to the end.
fn talk(
    address: SocketAddr,
    ca_pem: &str,
    protocols: &[&str],
    request: &[u8],
) -> std::io::Result<Heard> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let silent = Arc::new(Silent::default());
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = builder.with_client_cert_resolver(silent.clone());
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = address.ip().into();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(request)?;
    stream.flush()?;
    let mut answer = Vec::new();
    // A client that is refused does not always get a close_notify.
    let read = stream.read_to_end(&mut answer);
    assert!(
        read.as_ref().err().is_none_or(|error| error.kind() != std::io::ErrorKind::WouldBlock),
        "the connection stays open: {answer:?}"
    );
    let protocol = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
    if protocol.is_none() && answer.is_empty() {
        read?;
    }
    let asked_of = silent.0.lock().unwrap().take();
    Ok(Heard { protocol, answer, asked_of })
}

/// A controller in `dir` with these sockets, on ports of its own.
async fn serve(
    dir: &std::path::Path,
    sockets: Vec<Socket>,
) -> (Vec<SocketAddr>, String, CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>) {
    serve_with(dir, sockets, None).await
}

/// The same, with client certificates accepted.
async fn serve_with(
    dir: &std::path::Path,
    sockets: Vec<Socket>,
    clients: Option<clients::Settings>,
) -> (Vec<SocketAddr>, String, CancellationToken, tokio::task::JoinHandle<anyhow::Result<()>>) {
    install_crypto();
    let mut settings = settings(dir, "127.0.0.1:1".parse().unwrap());
    settings.sockets = sockets;
    settings.clients = clients;
    let open = http::bind(&settings.sockets).unwrap();
    let addresses = open.iter().map(|open| open.socket.address).collect();
    let app = build(settings).unwrap();
    let ca_pem = app.keys.ca_pem.clone();
    let stop = CancellationToken::new();
    (addresses, ca_pem, stop.clone(), tokio::spawn(http::serve_on(app, open, stop)))
}

fn socket(serves: &[Listener], is_plain_http: bool) -> Socket {
    Socket { address: "127.0.0.1:0".parse().unwrap(), serves: serves.to_vec(), is_plain_http }
}

#[tokio::test]
async fn the_listener_speaks_http_1_1_and_nothing_else() {
    let dir = temp_dir();
    let (addresses, ca_pem, stop, server) =
        serve(dir.path(), vec![socket(&Listener::ALL, false)]).await;
    let address = addresses[0];
    let heard = async |protocols: &'static [&'static str], request: &'static [u8]| {
        let ca_pem = ca_pem.clone();
        let talked = move || talk(address, &ca_pem, protocols, request);
        tokio::task::spawn_blocking(talked).await.unwrap()
    };

    let both = heard(&["h2", "http/1.1"], HEALTH).await.unwrap();
    assert_eq!(both.protocol.as_deref(), Some(&b"http/1.1"[..]));
    let silent = heard(&[], HEALTH).await.unwrap();
    for heard in [&both, &silent] {
        let answer = String::from_utf8_lossy(&heard.answer);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    // Nothing in common: the handshake ends (RFC 7301, section 3.2).
    let refused = heard(&["h2"], HEALTH).await.err().unwrap();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    // HTTP/2 without negotiation is not accepted either. The response would be a SETTINGS frame.
    if let Ok(unasked) = heard(&[], HTTP2).await {
        let answer = String::from_utf8_lossy(&unasked.answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer:?}");
    }
    stop.cancel();
    server.await.unwrap().unwrap();
}

// The client of the idle connection blocks a thread of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_listeners_begin_and_end_together_and_media_may_be_plain() {
    let dir = temp_dir();
    let sockets = vec![
        socket(&[Listener::Admin], false),
        socket(&[Listener::Node], false),
        socket(&[Listener::Media], true),
    ];
    let (addresses, ca_pem, stop, server) = serve(dir.path(), sockets).await;
    for (number, starts) in [(0, "HTTP/1.1 200 OK"), (1, "HTTP/1.1 404 Not Found")] {
        let (ca_pem, address) = (ca_pem.clone(), addresses[number]);
        let talked = move || talk(address, &ca_pem, &[], HEALTH).unwrap();
        let heard = tokio::task::spawn_blocking(talked).await.unwrap();
        let answer = String::from_utf8_lossy(&heard.answer);
        assert!(answer.starts_with(starts), "{answer}");
    }
    let plain = reqwest::get(format!("http://{}/m/token/task.iso", addresses[2])).await.unwrap();
    assert_eq!(plain.status(), 404);
    // A request that is under way gets its response; an idle connection does not delay the end.
    let mut idle = TcpStream::connect(addresses[2]).unwrap();
    idle.write_all(HEALTH_KEPT).unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 404");
    stop.cancel();
    tokio::time::timeout(DEADLINE, server).await.expect("all end").unwrap().unwrap();
    for address in addresses {
        assert!(TcpStream::connect(address).is_err(), "{address} is still open");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_before_anybody_is_served() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second =
        Socket { address: taken.local_addr().unwrap(), ..socket(&[Listener::Node], false) };
    let refused = http::bind(&[socket(&[Listener::Admin], false), second.clone()]);
    let told = format!("{:#}", refused.err().unwrap());
    assert!(told.starts_with(&format!("listen on {}: ", second.address)), "{told}");
}

/// A CA of clients.
struct Ca(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Ca {
    fn new(name: &str) -> Ca {
        let mut own = rcgen::CertificateParams::new(Vec::new()).unwrap();
        own.distinguished_name.push(rcgen::DnType::CommonName, name);
        own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        own.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = rcgen::KeyPair::generate().unwrap();
        Ca(rcgen::CertifiedIssuer::self_signed(own, key).unwrap())
    }

    /// A client with a certificate for this name that trusts the controller.
    fn client(&self, name: &str, controller_ca: &str) -> reqwest::Client {
        self.client_with_serial(name, 1, controller_ca)
    }

    fn client_with_serial(&self, name: &str, serial: u64, controller_ca: &str) -> reqwest::Client {
        let mut own = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        own.serial_number = Some(serial.into());
        own.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        let signed = own.signed_by(&key, &self.0).unwrap();
        let pem = format!("{}{}", signed.pem(), key.serialize_pem());
        builder(controller_ca)
            .identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap())
            .build()
            .unwrap()
    }
}

impl Ca {
    /// The revocation list (PEM) of certificates with these serial numbers, valid until the begin of the year `until`.
    fn revoking(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn builder(controller_ca: &str) -> reqwest::ClientBuilder {
    let ca = reqwest::Certificate::from_pem(controller_ca.as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([ca])
}

#[tokio::test]
async fn a_certificate_of_the_clients_ca_opens_what_its_role_may_where_people_are_served() {
    let (dir, ca, other) = (temp_dir(), Ca::new("ours"), Ca::new("other"));
    let ca_file = dir.path().join("clients.pem");
    std::fs::write(&ca_file, ca.0.pem()).unwrap();
    let roles = ["reader=*.ci.example.org", "admin=root.example.org"];
    let mut given: Vec<_> =
        roles.into_iter().map(|role| clients::parse_role(role).unwrap()).collect();
    given.push(clients::parse_publish("ci/=*.ci.example.org").unwrap());
    let sockets =
        vec![socket(&[Listener::Admin, Listener::Media], false), socket(&[Listener::Node], false)];
    let settings = clients::Settings { ca_file, crl_file: None, given };
    let (addresses, pem, stop, server) = serve_with(dir.path(), sockets, Some(settings)).await;
    let ask = async |client: &reqwest::Client, method: &str, path: &str| {
        let url = format!("https://{}{path}", addresses[0]);
        let sent = client.request(method.parse().unwrap(), url).send().await;
        sent.map(|answer| answer.status().as_u16())
    };
    let (jobs, server_path) = ("/api/v1/jobs", "/api/v1/servers/SN1");
    let nobody = builder(&pem).build().unwrap();
    assert_eq!(ask(&nobody, "GET", jobs).await.unwrap(), 401);
    assert_eq!(ask(&nobody, "GET", "/healthz").await.unwrap(), 200);
    let ci = ca.client("a.ci.example.org", &pem);
    assert_eq!(ask(&ci, "GET", jobs).await.unwrap(), 200);
    assert_eq!(ask(&ci, "DELETE", server_path).await.unwrap(), 403);
    assert_eq!(ask(&ci, "POST", "/v2/ci/app/blobs/uploads/").await.unwrap(), 202);
    assert_eq!(ask(&ci, "POST", "/v2/tools/app/blobs/uploads/").await.unwrap(), 403);
    let root = ca.client("root.example.org", &pem);
    assert_eq!(ask(&root, "DELETE", server_path).await.unwrap(), 404);
    assert_eq!(ask(&root, "GET", "/v2/").await.unwrap(), 200);
    assert_eq!(ask(&ca.client("x.example.org", &pem), "GET", jobs).await.unwrap(), 403);
    assert!(ask(&other.client("root.example.org", &pem), "GET", jobs).await.is_err());

    // If the request has a token, the token decides. A browser presents its certificate for the requests of any page.
    let url = format!("https://{}{jobs}", addresses[0]);
    let wrong = root.get(&url).bearer_auth("wrong").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    let own = format!("https://{}", addresses[0]);
    for (name, value, expected) in [
        ("sec-fetch-site", "cross-site", 401),
        ("origin", "https://evil.example", 401),
        ("origin", "null", 401),
        ("origin", &own.replace("https", "http"), 401),
        ("referer", "https://evil.example/page", 401),
        ("origin", &own, 404),
        ("referer", &format!("{own}/page"), 404),
    ] {
        let url = format!("https://{}{server_path}", addresses[0]);
        let by_page = root.delete(&url).header(name, value).send().await.unwrap();
        assert_eq!(by_page.status(), expected, "{name}: {value}");
    }
    // Machines are not asked for a certificate.
    let stranger = other.client("root.example.org", &pem);
    let node = format!("https://{}/healthz", addresses[1]);
    assert_eq!(stranger.get(&node).send().await.unwrap().status(), 404);

    let audit = root.get(format!("https://{}/api/v1/audit", addresses[0])).send().await.unwrap();
    let audit: serde_json::Value = audit.json().await.unwrap();
    let names: Vec<_> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["who"].as_str().unwrap().to_owned())
        .collect();
    let root = "certificate root.example.org";
    assert_eq!(names, ["certificate a.ci.example.org", root, root, root]);
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_is_told_the_cas_whose_certificates_count_where_people_are_served() {
    let (dir, ca, other) = (temp_dir(), Ca::new("ours"), Ca::new("other"));
    let ca_file = dir.path().join("clients.pem");
    std::fs::write(&ca_file, format!("{}{}", ca.0.pem(), other.0.pem())).unwrap();
    let given = vec![clients::parse_role("reader=*.example.org").unwrap()];
    let settings = clients::Settings { ca_file, crl_file: None, given };
    let sockets = vec![socket(&[Listener::Admin], false), socket(&[Listener::Node], false)];
    let (addresses, pem, stop, server) = serve_with(dir.path(), sockets, Some(settings)).await;
    let names = [ca, other].map(|ca| {
        let mut roots = RootCertStore::empty();
        roots.add(ca.0.der().clone()).unwrap();
        roots.subjects()[0].as_ref().to_vec()
    });
    // Browsers select a certificate by these names; machines have no certificate.
    for (address, expected) in addresses.into_iter().zip([Some(names.to_vec()), None]) {
        let pem = pem.clone();
        let talked = move || talk(address, &pem, &[], HEALTH).unwrap();
        let heard = tokio::task::spawn_blocking(talked).await.unwrap();
        assert_eq!(heard.asked_of, expected, "{address}");
    }
    stop.cancel();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_certificate_has_what_all_its_names_give_and_common_names_give_nothing() {
    let (dir, ca) = (temp_dir(), Ca::new("ours"));
    let ca_file = dir.path().join("clients.pem");
    std::fs::write(&ca_file, ca.0.pem()).unwrap();
    let roles = ["reader=a.example.org", "operator=spiffe://example.org/ops/*", "admin=root"];
    let given = roles.into_iter().map(|role| clients::parse_role(role).unwrap()).collect();
    let own = clients::Clients::new(clients::Settings { ca_file, crl_file: None, given }).unwrap();
    install_crypto();
    let names = |dns: &[&str], uris: &[&str]| {
        let dns = dns.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap()));
        let uris = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap()));
        dns.chain(uris).collect()
    };
    let shown = |names: Vec<rcgen::SanType>| {
        let mut own = rcgen::CertificateParams::new(Vec::new()).unwrap();
        own.distinguished_name.push(rcgen::DnType::CommonName, "root");
        own.subject_alt_names = names;
        own.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        vec![own.signed_by(&key, &ca.0).unwrap().der().to_vec()]
    };
    let spiffe = "spiffe://example.org/ops/ada";
    let long = format!("{}.example.org", "a".repeat(60));
    let longest: String =
        ["certificate", &long, &long, &long].join(" ").chars().take(128).collect();
    for (names, who, role) in [
        (names(&["a.example.org"], &[]), "certificate a.example.org", Some(Role::Reader)),
        (names(&[], &[spiffe]), "certificate spiffe://example.org/ops/ada", Some(Role::Operator)),
        (
            names(&["a.example.org"], &[spiffe]),
            "certificate spiffe://example.org/ops/ada a.example.org",
            Some(Role::Operator),
        ),
        (names(&["b.example.org"], &[]), "certificate b.example.org", None),
        (names(&[&long, &long, &long], &[]), &longest, None),
        (Vec::new(), "certificate", None),
    ] {
        let (seen, rights) = own.identify(&shown(names)).unwrap();
        assert_eq!((seen.as_str(), rights.map(|rights| rights.role)), (who, role));
    }
}

#[test]
fn files_of_cas_and_of_revoked_certificates_that_hold_none_are_refused_at_the_start() {
    let (dir, ca) = (temp_dir(), Ca::new("ours"));
    let [ca_file, crl_file] = ["clients.pem", "revoked.pem"].map(|name| dir.path().join(name));
    let (good_ca, good_list) = (ca.0.pem(), ca.revoking(&[1], 2099));
    let settings = || clients::Settings {
        ca_file: ca_file.clone(),
        crl_file: Some(crl_file.clone()),
        given: Vec::new(),
    };
    for (cas, lists, trouble) in [
        (&*good_ca, &*good_list, ""),
        ("", &good_list, "clients.pem holds no certificate"),
        (&good_list, &good_list, "clients.pem holds no certificate"),
        (&good_ca, "", "revoked.pem holds no revocation list"),
        (&good_ca, &good_ca, "revoked.pem holds no revocation list"),
    ] {
        std::fs::write(&ca_file, cas).unwrap();
        std::fs::write(&crl_file, lists).unwrap();
        let told = clients::Clients::new(settings()).err().map(|error| format!("{error:#}"));
        let told = told.unwrap_or_default();
        assert_eq!(told.is_empty(), trouble.is_empty(), "{told}");
        assert!(told.contains(trouble), "{told}");
    }
    std::fs::remove_file(&crl_file).unwrap();
    assert!(clients::Clients::new(settings()).is_err());
}

#[tokio::test]
async fn a_certificate_counts_until_it_is_revoked_also_on_a_connection_that_is_open() {
    let (dir, ca, other) = (temp_dir(), Ca::new("ours"), Ca::new("other"));
    let [ca_file, crl_file] = ["clients.pem", "revoked.pem"].map(|name| dir.path().join(name));
    std::fs::write(&ca_file, format!("{}{}", ca.0.pem(), other.0.pem())).unwrap();
    let revoke = |serials: &[u64], until| {
        std::fs::write(&crl_file, ca.revoking(serials, until)).unwrap();
    };
    revoke(&[], 2099);
    let given = vec![clients::parse_role("reader=*.example.org").unwrap()];
    let settings = clients::Settings { ca_file, crl_file: Some(crl_file.clone()), given };
    let sockets = vec![socket(&Listener::ALL, false)];
    let (addresses, pem, stop, server) = serve_with(dir.path(), sockets, Some(settings)).await;
    let client = |serial| ca.client_with_serial("a.example.org", serial, &pem);
    let url = format!("https://{}/api/v1/jobs", addresses[0]);
    let ask = async |client: &reqwest::Client| {
        let answer = client.get(&url).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.unwrap()))
    };
    let status = async |client: &reqwest::Client| ask(client).await.map(|(status, _)| status);

    let (lost, kept) = (client(7), client(8));
    assert_eq!(status(&lost).await, Some(200));
    assert_eq!(status(&kept).await, Some(200));
    // Certificates of a CA without a revocation list are not accepted.
    assert_eq!(status(&other.client("a.example.org", &pem)).await, None);

    revoke(&[7], 2099);
    let (told, why) = ask(&lost).await.unwrap();
    assert!(told == 401 && why.contains("Revoked"), "{told} {why}");
    assert_eq!(status(&client(7)).await, None, "a new connection");
    assert_eq!(status(&kept).await, Some(200));

    // Lists that cannot be read change nothing.
    std::fs::write(&crl_file, "nonsense").unwrap();
    assert_eq!(status(&client(7)).await, None);
    assert_eq!(status(&client(8)).await, Some(200));

    revoke(&[7], 2021);
    assert_eq!(status(&kept).await, Some(401), "the list is out of date");
    assert_eq!(status(&client(8)).await, None);
    revoke(&[], 2099);
    assert_eq!(status(&client(7)).await, Some(200));
    stop.cancel();
    server.await.unwrap().unwrap();
}
