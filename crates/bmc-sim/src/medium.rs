// SPDX-License-Identifier: AGPL-3.0-or-later
//! A virtual medium: a block device whose bytes are read by ranges from a URL, when the machine reads them.
//!
//! ```text
//! QEMU ──NBD, unix socket──▶ Medium ──GET with Range──▶ media server
//! ```
//!
//! QEMU can read a URL itself (`block/curl.c`). But in 10.0.2, reads of a medium's last sectors were seen not to
//! complete although the response had arrived, and the guest's bus reset then hung the whole process. With this module
//! every read ends, with bytes or with an error.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::{
    Client, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, RANGE},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};
use url::Url;

use crate::nbd::{self, Request};

/// Sectors 16 and 17 of 2048 bytes.
const DESCRIPTORS: std::ops::Range<u64> = 16 * 2048..18 * 2048;
/// Size of one request: large enough that a boot reads a large file at the speed of the link, small enough that the
/// scattered reads of a squashfs do not fetch much that is not needed.
const WINDOW_BYTES: u64 = 1 << 20;
/// Number of windows in the cache. Like a drive's cache it serves firmware that reads sector by sector.
const WINDOWS_MAX: usize = 8;
/// Time limit of one request, also to a server that is slowed down by the machine's own load.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A BMC repeats a request to an unreachable media server; kernels wait 30 s for a drive. A read that fails
/// makes QEMU pause the machine, and a retry does not always succeed: 10.0.2 was seen to abort
/// (`ide_restart_bh: Assertion s->end_transfer_func == ide_atapi_cmd failed`).
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("reach the medium")]
    Http(#[from] reqwest::Error),
    #[error("the media server answers {0}")]
    Status(StatusCode),
    #[error("the media server does not say how long the medium is")]
    NoLength,
    #[error("the media server does not serve ranges")]
    NoRanges,
    #[error("the media server sends other bytes than {wanted}: {sent}")]
    OtherBytes { wanted: String, sent: String },
    #[error("listen for QEMU at {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

/// An inserted medium. QEMU finds it at `socket`, in its work directory, until this is dropped.
pub(crate) struct Medium {
    pub(crate) socket: String,
    path: PathBuf,
    server: JoinHandle<()>,
}

impl Medium {
    /// Checks that the medium exists, and listens.
    pub(crate) async fn open(url: &Url, work_dir: &Path, name: &str) -> Result<Medium, Error> {
        let source = Source::open(url).await?;
        let socket = format!("{name}.nbd");
        let path = work_dir.join(&socket);
        let listener = listen(work_dir, &socket)
            .map_err(|source| Error::Listen { path: path.clone(), source })?;
        Ok(Medium { socket, path, server: tokio::spawn(serve(listener, source)) })
    }
}

/// Checks that a medium exists and can be read by ranges: reads its descriptors, as BMCs do at the insert.
pub(crate) async fn look(url: &Url) -> Result<(), Error> {
    Source::open(url).await?.read_descriptors().await
}

impl Drop for Medium {
    fn drop(&mut self) {
        self.server.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "remove a socket");
        }
    }
}

/// Listens on a socket in a directory. The path goes through the open directory, because its length is limited.
fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Serves one client at a time: there is one QEMU.
async fn serve(listener: UnixListener, mut source: Source) {
    loop {
        let ended = match listener.accept().await {
            Ok((mut stream, _)) => converse(&mut stream, &mut source).await,
            Err(error) => return tracing::warn!(%error, "wait for QEMU to open a medium"),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a conversation about a medium ended");
        }
    }
}

async fn converse(stream: &mut UnixStream, source: &mut Source) -> io::Result<()> {
    if !nbd::negotiate(stream, source.length).await? {
        return Ok(());
    }
    let mut header = [0; nbd::REQUEST_BYTES];
    loop {
        stream.read_exact(&mut header).await?;
        match nbd::parse(&header, source.length)? {
            Request::Disconnect => return Ok(()),
            Request::Flush { cookie } => stream.write_all(&nbd::reply(cookie, 0)).await?,
            Request::Refused { cookie, error } => {
                stream.write_all(&nbd::reply(cookie, error)).await?;
            }
            Request::Read { cookie, start, length } => match source.read(start, length).await {
                Ok(bytes) => {
                    stream.write_all(&nbd::reply(cookie, 0)).await?;
                    stream.write_all(&bytes).await?;
                }
                Err(error) => {
                    tell_unread(start, length, &error);
                    stream.write_all(&nbd::reply(cookie, nbd::EIO)).await?;
                }
            },
        }
    }
}

fn tell_unread(start: u64, length: u32, error: &Error) {
    tracing::warn!(start, length, error = error as &dyn std::error::Error, "read a medium");
}

/// The medium at a URL.
struct Source {
    client: Client,
    url: Url,
    length: u64,
    /// Cached windows, the newest first.
    windows: VecDeque<Window>,
}

struct Window {
    start: u64,
    bytes: bytes::Bytes,
}

impl Source {
    async fn open(url: &Url) -> Result<Source, Error> {
        let client = Client::builder()
            // Like most BMCs, it does not check the certificate of a media server.
            .tls_danger_accept_invalid_certs(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        let answer = client.head(url.clone()).send().await?;
        if answer.status() != StatusCode::OK {
            return Err(Error::Status(answer.status()));
        }
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        if header(ACCEPT_RANGES) != Some("bytes") {
            return Err(Error::NoRanges);
        }
        let length = length.ok_or(Error::NoLength)?;
        Ok(Source { client, url: url.clone(), length, windows: VecDeque::new() })
    }

    /// Reads where the descriptors of an ISO 9660 image are (ECMA-119, 6.2.1), or the beginning of a shorter medium.
    async fn read_descriptors(&self) -> Result<(), Error> {
        let start = if self.length > DESCRIPTORS.end { DESCRIPTORS.start } else { 0 };
        let end = self.length.min(start + (DESCRIPTORS.end - DESCRIPTORS.start));
        if start < end {
            self.get(&(start..end)).await?;
        }
        Ok(())
    }

    /// Reads bytes that are all within the medium.
    async fn read(&mut self, start: u64, length: u32) -> Result<Vec<u8>, Error> {
        let mut read = Vec::with_capacity(length as usize);
        let end = start + u64::from(length);
        let mut at = start;
        while at < end {
            let wanted = at..end;
            let bytes = match self.windows.iter().find_map(|window| window.part(&wanted)) {
                Some(bytes) => bytes,
                None => self.fetch_patiently(&wanted).await?,
            };
            at += bytes.len() as u64;
            read.extend_from_slice(&bytes);
        }
        Ok(read)
    }

    async fn fetch_patiently(
        &mut self,
        wanted: &std::ops::Range<u64>,
    ) -> Result<bytes::Bytes, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.fetch(wanted).await {
                Err(Error::Http(error)) if Instant::now() < deadline => {
                    tracing::debug!(%error, "the media server is away");
                    tokio::time::sleep(PAUSE).await;
                }
                fetched => return fetched,
            }
        }
    }

    /// Fetches the wanted bytes and those that may be needed next. Returns the wanted bytes.
    async fn fetch(&mut self, wanted: &std::ops::Range<u64>) -> Result<bytes::Bytes, Error> {
        let end = wanted.end.max(wanted.start + WINDOW_BYTES).min(self.length);
        let bytes = self.get(&(wanted.start..end)).await?;
        let window = Window { start: wanted.start, bytes };
        let part = window.part(wanted).unwrap_or_default();
        self.windows.truncate(WINDOWS_MAX - 1);
        self.windows.push_front(window);
        Ok(part)
    }

    /// Fetches these bytes, which are all within the medium.
    async fn get(&self, range: &std::ops::Range<u64>) -> Result<bytes::Bytes, Error> {
        let asked = format!("{}-{}", range.start, range.end - 1);
        let request = self.client.get(self.url.clone()).header(RANGE, format!("bytes={asked}"));
        let answer = request.send().await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Error::Status(answer.status()));
        }
        let sent = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let sent = sent.unwrap_or("no Content-Range").to_owned();
        let bytes = answer.bytes().await?;
        let is_wanted = sent.strip_prefix("bytes ").is_some_and(|sent| sent.starts_with(&asked));
        if !is_wanted || bytes.len() as u64 != range.end - range.start {
            let sent = format!("{sent}, {} bytes", bytes.len());
            return Err(Error::OtherBytes { wanted: asked, sent });
        }
        Ok(bytes)
    }
}

impl Window {
    /// The first of the wanted bytes, as many as the window contains.
    fn part(&self, wanted: &std::ops::Range<u64>) -> Option<bytes::Bytes> {
        let from = usize::try_from(wanted.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(wanted.end - self.start).ok()?.min(self.bytes.len());
        (from < to).then(|| self.bytes.slice(from..to))
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::HeaderMap, response::IntoResponse, routing::get};

    use super::*;

    /// Not a multiple of a window, because the size of a medium never is.
    const LENGTH: usize = (5 << 19) + 6144;

    fn content() -> Vec<u8> {
        (0..LENGTH).map(|at| (at / 7 % 251) as u8).collect()
    }

    async fn serve_part(headers: HeaderMap) -> impl IntoResponse {
        let content = content();
        let Some(range) = headers.get(RANGE) else {
            return (StatusCode::OK, [(ACCEPT_RANGES, "bytes".to_owned())], content);
        };
        let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let part = content[first.parse().unwrap()..=last.parse().unwrap()].to_vec();
        (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, format!("bytes {range}/{LENGTH}"))], part)
    }

    /// Starts a media server. Returns its URL.
    async fn server() -> (JoinHandle<()>, Url) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a.iso", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().route("/a.iso", get(serve_part));
        (tokio::spawn(async { axum::serve(listener, router).await.unwrap() }), url)
    }

    #[tokio::test]
    async fn qemu_reads_the_very_bytes_to_the_last() {
        let (_server, url) = server().await;
        let dir = tempfile::tempdir().unwrap();
        let medium = Medium::open(&url, dir.path(), "cd1-1").await.unwrap();
        let copy = dir.path().join("copy");
        let status = tokio::process::Command::new("qemu-img")
            .args(["convert", "-O", "raw"])
            .arg(format!("nbd+unix:///?socket={}", dir.path().join(&medium.socket).display()))
            .arg(&copy)
            .status();
        assert!(status.await.unwrap().success());
        assert!(std::fs::read(copy).unwrap() == content());
        let socket = dir.path().join(&medium.socket);
        drop(medium);
        assert!(!socket.exists());
    }

    #[tokio::test]
    async fn a_read_waits_for_a_server_that_is_away_for_a_moment() {
        let (server, url) = server().await;
        let mut source = Source::open(&url).await.unwrap();
        server.abort();
        let _ended = server.await;
        // A new server, so that no connection to the old one is left.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        source.url.set_port(Some(address.port())).unwrap();
        let (first, rest) = (source.fetch(&(0..2048)).await, tokio::time::sleep(2 * PAUSE));
        assert!(matches!(first, Err(Error::Http(_))), "nobody is there");
        let back = async {
            rest.await;
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let router = Router::new().route("/a.iso", get(serve_part));
            axum::serve(listener, router).await.unwrap();
        };
        tokio::select! {
            read = source.read(0, 4096) => assert!(read.unwrap() == content()[..4096]),
            () = back => panic!("it serves for ever"),
        }
    }

    #[tokio::test]
    async fn what_was_read_last_is_read_again_without_the_server() {
        let (server, url) = server().await;
        let mut source = Source::open(&url).await.unwrap();
        let end = LENGTH as u64 - 6144;
        for start in [0, 2048, WINDOW_BYTES - 2048, end] {
            let read = source.read(start, 4096).await.unwrap();
            assert!(read == content()[start as usize..][..4096], "at {start}");
        }
        server.abort();
        let _ended = server.await;
        assert!(source.read(end + 2048, 4096).await.is_ok());
        // The connection may outlive its listener. The test requires only that the read ends.
        let mut gone = Source { windows: VecDeque::new(), ..source };
        gone.url.set_path("/gone.iso");
        assert!(gone.fetch(&(0..4096)).await.is_err());
    }
}
