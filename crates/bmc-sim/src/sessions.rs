// SPDX-License-Identifier: AGPL-3.0-or-later
//! Authentication: one account, by Basic authentication or by the token of a session.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use subtle::ConstantTimeEq;

/// The account of the BMC.
#[derive(Clone)]
pub struct Access {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Access(***)")
    }
}

// A limit as on real BMCs, where clients that never log out lock all others out.
const SESSIONS_MAX: usize = 16;
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(30 * 60);

pub(crate) struct Sessions {
    access: Access,
    open: Mutex<Vec<Session>>,
}

struct Session {
    id: String,
    token: String,
    last_used: Instant,
}

/// A new session, as it is returned to the client once.
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) token: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("wrong user name or password")]
    WrongPassword,
    #[error("{SESSIONS_MAX} sessions are open, and more there cannot be")]
    Full,
}

impl Sessions {
    pub(crate) fn new(access: Access) -> Self {
        Self { access, open: Mutex::default() }
    }

    pub(crate) fn username(&self) -> &str {
        &self.access.username
    }

    pub(crate) fn open(&self, username: &str, password: &str) -> Result<Opened, Error> {
        if !self.is_account(username, password) {
            return Err(Error::WrongPassword);
        }
        let mut open = self.alive();
        if open.len() >= SESSIONS_MAX {
            return Err(Error::Full);
        }
        let (id, token) = (random_hex::<4>(), random_hex::<16>());
        open.push(Session { id: id.clone(), token: token.clone(), last_used: Instant::now() });
        Ok(Opened { id, token })
    }

    /// Closes a session. Returns whether it existed.
    pub(crate) fn close(&self, id: &str) -> bool {
        let mut open = self.alive();
        let before = open.len();
        open.retain(|session| session.id != id);
        open.len() < before
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.alive().iter().map(|session| session.id.clone()).collect()
    }

    /// Whether the headers of a request authenticate the client.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        if let Some(token) = headers.get("x-auth-token") {
            let mut open = self.alive();
            let owner =
                open.iter_mut().find(|session| same(session.token.as_bytes(), token.as_bytes()));
            return owner.map(|session| session.last_used = Instant::now()).is_some();
        }
        basic(headers).is_some_and(|(username, password)| self.is_account(&username, &password))
    }

    fn is_account(&self, username: &str, password: &str) -> bool {
        same(username.as_bytes(), self.access.username.as_bytes())
            & same(password.as_bytes(), self.access.password.as_bytes())
    }

    fn alive(&self) -> MutexGuard<'_, Vec<Session>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|session| session.last_used.elapsed() < IDLE_MAX);
        open
    }
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    hex::encode(bytes)
}
