// SPDX-License-Identifier: AGPL-3.0-or-later
//! The client for the node messages of the API over HTTP(S). It retries while the controller is unreachable, and
//! accepts every final response.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::Context;
use api::signal::Signal;
use recipe::task_medium::Attempt;
use serde::Serialize;

use crate::{places, session};

/// Time for one try. A longer outage is bridged by retries.
const TRY: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The controller, with the URL and the token of this attempt.
pub struct Controller {
    agent: ureq::Agent,
    base: String,
    authorization: String,
}

/// A response that a retry would not change.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Yes,
    /// A 4xx status: the detail of the problem document, or the status if there is none.
    No {
        status: u16,
        reason: String,
    },
}

/// A try that must be repeated.
#[derive(Debug)]
pub struct Unanswered {
    reason: String,
    signal: Signal,
}

/// Reads the attempt of the task medium that was found during this boot.
pub fn attempt() -> anyhow::Result<Attempt> {
    let bytes = fs::read(places::ATTEMPT_FILE)
        .with_context(|| format!("read {}; was a task medium found?", places::ATTEMPT_FILE))?;
    serde_json::from_slice(&bytes).with_context(|| format!("understand {}", places::ATTEMPT_FILE))
}

impl Controller {
    /// A client with the token of the task medium, for the hello.
    pub fn before_hello(attempt: &Attempt) -> anyhow::Result<Controller> {
        Controller::with_token(attempt, attempt.token.as_str())
    }

    /// A client with the token of this boot's session, for everything after the hello.
    pub fn of_this_boot(attempt: &Attempt) -> anyhow::Result<Controller> {
        Controller::with_token(attempt, &session::token()?)
    }

    fn with_token(attempt: &Attempt, token: &str) -> anyhow::Result<Controller> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TRY))
            .max_redirects(0);
        if attempt.controller_ca_pem.is_some() {
            config = config.https_only(true);
        }
        let base =
            format!("{}/api/v1/node/attempts/{}", attempt.controller_url, attempt.attempt_id);
        let authorization = format!("Bearer {token}");
        let agent = match &attempt.controller_ca_pem {
            Some(pem) => trust::agent(config.build(), pem.as_bytes(), None)
                .context("read controller_ca_pem of the task medium")?,
            None => ureq::Agent::new_with_config(config.build()),
        };
        Ok(Controller { agent, base, authorization })
    }

    /// Sends until there is a response. Each distinct reason for waiting is printed once.
    pub fn tell(&self, message: &str, body: &impl Serialize) -> Answer {
        self.tell_watched(message, body, |_| {})
    }

    /// The same, and calls `watch` for each try without a response.
    pub fn tell_watched(
        &self,
        message: &str,
        body: &impl Serialize,
        mut watch: impl FnMut(Signal),
    ) -> Answer {
        persist(message, || self.once(message, body), &mut watch)
    }

    /// Fetches a document of this attempt, of at most `bytes_max` bytes. An error is a response that a retry would not
    /// change.
    pub fn fetch(&self, what: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
        persist(what, || self.fetch_once(what, bytes_max), &mut |_| {})
    }

    fn fetch_once(
        &self,
        what: &str,
        bytes_max: u64,
    ) -> Result<Result<Vec<u8>, String>, Unanswered> {
        let url = format!("{}/{what}", self.base);
        let got = self.agent.get(&url).header("authorization", &self.authorization).call();
        let answer = got.map_err(|error| unanswered(&url, &error))?;
        let status = answer.status().as_u16();
        let body = answer.into_body().into_with_config().limit(bytes_max).read_to_vec();
        let body = body.map_err(|error| unanswered(&url, &error))?;
        let said = || detail(&String::from_utf8_lossy(&body));
        match status {
            200 => Ok(Ok(body)),
            _ if is_passing(status) => Err(not_well(&url, status, &said())),
            _ => Ok(Err(format!("{} ({status})", said()))),
        }
    }

    /// Tries once: returns a response, or the reason to repeat the request.
    pub fn once(&self, message: &str, body: &impl Serialize) -> Result<Answer, Unanswered> {
        let url = format!("{}/{message}", self.base);
        let sent = self
            .agent
            .post(&url)
            .header("authorization", &self.authorization)
            .send_json(body)
            .map_err(|error| unanswered(&url, &error))?;
        let status = sent.status().as_u16();
        let text = sent
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .unwrap_or_default();
        match status {
            200..=299 => Ok(Answer::Yes),
            _ if is_passing(status) => Err(not_well(&url, status, &detail(&text))),
            _ => Ok(Answer::No { status, reason: format!("{} ({status})", detail(&text)) }),
        }
    }
}

/// Tries until there is a response. Each distinct reason for waiting is printed once.
fn persist<T>(
    message: &str,
    mut once: impl FnMut() -> Result<T, Unanswered>,
    watch: &mut impl FnMut(Signal),
) -> T {
    let mut pause = PAUSE_MIN;
    let mut said = String::new();
    loop {
        let Unanswered { reason, signal } = match once() {
            Ok(answer) => return answer,
            Err(unanswered) => unanswered,
        };
        watch(signal);
        if reason != said {
            eprintln!("{message}: {reason}; trying until it is answered");
            said = reason;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether a status is temporary: too early, too many requests, or a server error (5xx).
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

fn not_well(url: &str, status: u16, detail: &str) -> Unanswered {
    let reason = format!("{url} answers {status}: {detail}");
    Unanswered { reason, signal: Signal::OtherAnswer }
}

fn unanswered(url: &str, error: &ureq::Error) -> Unanswered {
    Unanswered { reason: format!("{url}: {error}"), signal: signal_of(error) }
}

/// The signal for an error, as far as the error shows it. The underlying cause may be a missing link or address.
fn signal_of(error: &ureq::Error) -> Signal {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    match error {
        ureq::Error::HostNotFound => Signal::UnknownName,
        ureq::Error::Timeout(ureq::Timeout::Resolve) => Signal::UnknownName,
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => Signal::NoAnswer,
        ureq::Error::Rustls(rustls::Error::InvalidCertificate(_)) => Signal::CertificateRefused,
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Signal::ConnectionRefused,
            HostUnreachable | NetworkUnreachable | NetworkDown | AddrNotAvailable => {
                Signal::NoRoute
            }
            io::ErrorKind::TimedOut => Signal::NoAnswer,
            _ => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(rustls::Error::InvalidCertificate(_)) => Signal::CertificateRefused,
                _ => Signal::OtherAnswer,
            },
        },
        _ => Signal::OtherAnswer,
    }
}

fn detail(text: &str) -> String {
    let problem: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let part = ["detail", "title"].iter().find_map(|key| problem[key].as_str());
    part.unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Serves one connection after the other with these responses, and returns the requests.
    fn serve(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let answer = |answer: &str| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    head.push_str(&line);
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
                head + &String::from_utf8(body).unwrap()
            };
            answers.into_iter().map(answer).collect()
        });
        (url, thread)
    }

    fn controller(url: &str) -> Controller {
        let attempt: Attempt = serde_json::from_value(serde_json::json!({
            "job_id": "j", "attempt_id": "a1", "server_serial": "SN1",
            "controller_url": url, "token": "secret"
        }))
        .unwrap();
        Controller::before_hello(&attempt).unwrap()
    }

    #[test]
    fn an_outage_is_outlasted_and_an_answer_is_obeyed() {
        let (url, thread) = serve(vec![
            "",
            "HTTP/1.1 503 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 204 x\r\nconnection: close\r\n\r\n",
        ]);
        assert_eq!(controller(&url).tell("hello", &serde_json::json!({"n": 1})), Answer::Yes);
        let asked = thread.join().unwrap();
        for request in &asked {
            assert!(request.starts_with("POST /api/v1/node/attempts/a1/hello "), "{request}");
            assert!(request.to_lowercase().contains("authorization: bearer secret"), "{request}");
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body, serde_json::json!({"n": 1}));
        }
        assert_eq!(asked.len(), 3);
    }

    #[test]
    fn what_is_fetched_comes_whole_after_an_outage_and_a_refusal_is_told() {
        let (url, thread) = serve(vec![
            "",
            "HTTP/1.1 503 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 200 x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
            "HTTP/1.1 410 x\r\ncontent-length: 23\r\nconnection: close\r\n\r\n{\"detail\":\"it is over\"}",
        ]);
        let controller = controller(&url);
        assert_eq!(controller.fetch("recipe", 2), Ok(b"{}".to_vec()));
        assert_eq!(controller.fetch("recipe", 100), Err("it is over (410)".into()));
        let asked = thread.join().unwrap();
        assert!(asked[2].starts_with("GET /api/v1/node/attempts/a1/recipe "), "{}", asked[2]);
    }

    #[test]
    fn an_error_tells_what_to_look_at() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let once =
            |url: &str| controller(url).once("hello", &serde_json::json!({})).unwrap_err().signal;
        assert_eq!(once(&format!("http://{closed}")), Signal::ConnectionRefused);
        let (url, thread) = serve(vec!["HTTP/1.1 502 x\r\ncontent-length: 0\r\n\r\n"]);
        assert_eq!(once(&url), Signal::OtherAnswer);
        thread.join().unwrap();
        let io = |error| signal_of(&ureq::Error::Io(error));
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert_eq!(io(io::Error::other(unknown)), Signal::CertificateRefused);
        assert_eq!(io(io::ErrorKind::NetworkUnreachable.into()), Signal::NoRoute);
        assert_eq!(signal_of(&ureq::Error::HostNotFound), Signal::UnknownName);
        assert_eq!(signal_of(&ureq::Error::Timeout(ureq::Timeout::Global)), Signal::NoAnswer);
    }

    #[test]
    fn a_refusal_is_told_in_the_controllers_words() {
        let (url, thread) = serve(vec![
            "HTTP/1.1 410 x\r\ncontent-length: 24\r\nconnection: close\r\n\r\n{\"detail\":\"it is over\"}  ",
        ]);
        let answer = controller(&url).tell("permit", &serde_json::json!({}));
        assert_eq!(answer, Answer::No { status: 410, reason: "it is over (410)".into() });
        thread.join().unwrap();
    }
}
