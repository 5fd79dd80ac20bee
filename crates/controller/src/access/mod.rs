// SPDX-License-Identifier: AGPL-3.0-or-later
//! Authentication: identifies a caller and its rights by the admin's token, a token of the store, a token of an
//! identity provider, or a client certificate.

pub mod clients;
pub mod oidc;
pub mod role_bindings;
pub mod throttle;
pub mod tokens;

use std::sync::Arc;

use api::access::Role;
use subtle::ConstantTimeEq;

use crate::keys::{Keys, sha256};
use crate::store::{self, Store, TokenRow};
use crate::time::now_ms;
use clients::Clients;
use oidc::Oidc;
use role_bindings::Rights;
use throttle::Throttle;

/// An identified caller.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The caller's name in the audit log.
    pub who: String,
    pub role: Role,
    /// Prefixes of the registry that are permitted in addition to the role.
    pub pull: Vec<String>,
    pub push: Vec<String>,
}

impl Principal {
    fn with(who: String, Rights { role, push }: Rights) -> Principal {
        Principal { who, role, pull: Vec::new(), push }
    }

    fn admin(who: &str) -> Principal {
        Principal::with(who.to_owned(), Rights { role: Role::Admin, push: Vec::new() })
    }
}

/// Why a caller is not identified, or has no rights.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    NoRights(String),
    #[error("{0}")]
    NoProvider(String),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<oidc::Refused> for Denied {
    fn from(refused: oidc::Refused) -> Denied {
        let detail = refused.to_string();
        match refused {
            oidc::Refused::Wrong(_) => Denied::Unknown(detail),
            oidc::Refused::NoRights { .. } => Denied::NoRights(detail),
            oidc::Refused::NoKeys(_) => Denied::NoProvider(detail),
        }
    }
}

/// The ways to authenticate, besides tokens of the store.
#[derive(Debug, Clone)]
pub struct Config {
    pub oidc: Option<oidc::Settings>,
    pub clients: Option<clients::Settings>,
    /// Every caller is an admin.
    pub is_open: bool,
}

/// Identifies callers.
pub struct Access {
    store: Store,
    keys: Arc<Keys>,
    /// The identity provider, if there is one.
    oidc: Option<Oidc>,
    /// Client certificates that are accepted in place of a token.
    pub clients: Option<Arc<Clients>>,
    pub throttle: Throttle,
    /// Every caller is an admin.
    pub is_open: bool,
}

impl Access {
    /// # Errors
    ///
    /// A file or value named in the settings cannot be used.
    pub fn new(config: Config, store: Store, keys: Arc<Keys>) -> anyhow::Result<Access> {
        let Config { oidc, clients, is_open } = config;
        Ok(Access {
            store,
            keys,
            oidc: oidc.map(Oidc::new).transpose()?,
            clients: clients.map(Clients::new).transpose()?.map(Arc::new),
            throttle: Throttle::default(),
            is_open,
        })
    }

    /// The caller of a controller without authentication.
    pub fn anyone(&self) -> Principal {
        Principal::admin("anyone")
    }

    /// Returns the caller to whom a token belongs.
    pub async fn by_token(&self, text: &str) -> Result<Principal, Denied> {
        if self.keys.is_admin_token(text) {
            return Ok(Principal::admin("admin-token"));
        }
        if let Some(oidc) = self.oidc.as_ref().filter(|_| oidc::is_one(text)) {
            let oidc::Person { who, rights } = oidc.identify(text).await?;
            return Ok(Principal::with(who, rights));
        }
        let Some(row) = self.token_row(text).await? else {
            return Err(Denied::Unknown(
                "this is no token of this controller, or a part of one; ask an admin for one (`shoal token create`)"
                    .into(),
            ));
        };
        let now = now_ms();
        if !row.is_good(now) {
            return Err(Denied::Unknown(format!(
                "token {} is revoked or expired; ask an admin for a new one (`shoal token create`)",
                row.id
            )));
        }
        if row.is_use_news(now)
            && let Err(error) = self.store.token_used(&row.id, now).await
        {
            tracing::warn!(%error, token = row.id, "the use of a token is not noted");
        }
        let who = format!("token {} {}", row.id, row.name);
        Ok(Principal { who, role: row.role, pull: row.pull, push: row.push })
    }

    /// Returns the caller that presented these certificates (DER, the client's own first). `None` if certificates are
    /// not accepted.
    pub fn by_certificate(&self, shown: &[Vec<u8>]) -> Option<Result<Principal, Denied>> {
        let clients = self.clients.as_ref()?;
        if shown.is_empty() {
            return None;
        }
        Some(match clients.identify(shown) {
            Ok((who, Some(rights))) => Ok(Principal::with(who, rights)),
            Ok((who, None)) => Err(Denied::NoRights(format!(
                "{who}: none of its names gives anything (--client-role)"
            ))),
            Err(why) => {
                Err(Denied::Unknown(format!("your certificate does not count any more: {why}")))
            }
        })
    }

    async fn token_row(&self, text: &str) -> Result<Option<TokenRow>, store::Error> {
        let Some(id) = tokens::id(text) else { return Ok(None) };
        let row = self.store.token(id).await?;
        Ok(row.filter(|row| bool::from(sha256(text.as_bytes()).ct_eq(&row.hash))))
    }
}
