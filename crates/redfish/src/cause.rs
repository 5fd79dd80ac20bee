// SPDX-License-Identifier: AGPL-3.0-or-later
//! The causes for which a BMC refuses a request, and the consequences of each. The messages by which a cause is
//! recognized are in `messages`.

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The machine runs its power-on self test.
    InPost,
    NoLicence,
    NoPrivilege,
    /// The value, the property or the action does not exist at this BMC.
    NoSuchValue,
    InUse,
    /// The service or the resource is not ready.
    NotReady,
    Updating,
    SessionLimit,
    PasswordChange,
    AccountLocked,
    BadCredentials,
    Lockdown,
    /// The power state of the machine does not allow it.
    PowerState,
    /// The BMC cannot fetch what a URL names.
    NotFetched,
}

impl Cause {
    /// A description, with the remedy where it is not obvious.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Cause::InPost => "the machine is in POST",
            Cause::NoLicence => "the BMC has no license for this; install one that includes it",
            Cause::NoPrivilege => "the BMC's account lacks a privilege for this",
            Cause::NoSuchValue => "the BMC does not know this value or action",
            Cause::InUse => "the resource is in use",
            Cause::NotReady => "the BMC is not ready",
            Cause::Updating => "a firmware update is in progress",
            Cause::SessionLimit => {
                "the BMC has no free session; idle sessions end after some minutes"
            }
            Cause::PasswordChange => {
                "the password of the BMC's account must be changed at the BMC first; then set the server with the \
                 new one"
            }
            Cause::AccountLocked => {
                "the BMC's account is locked or blocked for now; unlock it at the BMC or wait until it does so itself"
            }
            Cause::BadCredentials => "the user name or the password is wrong",
            Cause::Lockdown => "the BMC is in lockdown mode; end it at the BMC",
            Cause::PowerState => "the power state of the machine does not allow it",
            Cause::NotFetched => "the BMC cannot fetch the URL",
        }
    }

    /// Whether it ends without intervention. `None` if only the HTTP status can tell.
    pub(crate) fn is_transient(self) -> Option<bool> {
        match self {
            Cause::InPost
            | Cause::InUse
            | Cause::NotReady
            | Cause::Updating
            | Cause::SessionLimit => Some(true),
            Cause::NoLicence
            | Cause::NoPrivilege
            | Cause::NoSuchValue
            | Cause::PasswordChange
            | Cause::AccountLocked
            | Cause::BadCredentials
            | Cause::Lockdown => Some(false),
            Cause::PowerState | Cause::NotFetched => None,
        }
    }

    /// Whether it concerns the whole BMC or the account, so that a request for another resource would have the same
    /// result.
    pub(crate) fn is_of_bmc(self) -> bool {
        match self {
            Cause::InPost
            | Cause::NoLicence
            | Cause::NoPrivilege
            | Cause::Updating
            | Cause::SessionLimit
            | Cause::PasswordChange
            | Cause::AccountLocked
            | Cause::BadCredentials
            | Cause::Lockdown => true,
            Cause::NoSuchValue
            | Cause::InUse
            | Cause::NotReady
            | Cause::PowerState
            | Cause::NotFetched => false,
        }
    }

    /// Whether a login that was refused for this cause may still have had the right user name and password. Several
    /// BMCs refuse a wrong password with `InsufficientPrivilege` or `AccessDenied`.
    pub(crate) fn excuses_credentials(self) -> bool {
        match self {
            Cause::InPost
            | Cause::NoLicence
            | Cause::NotReady
            | Cause::Updating
            | Cause::SessionLimit
            | Cause::PasswordChange
            | Cause::AccountLocked
            | Cause::Lockdown => true,
            Cause::NoPrivilege
            | Cause::NoSuchValue
            | Cause::InUse
            | Cause::BadCredentials
            | Cause::PowerState
            | Cause::NotFetched => false,
        }
    }

    /// Whether the service as a whole cannot accept requests for a while.
    pub(crate) fn is_of_service(self) -> bool {
        matches!(self, Cause::NotReady | Cause::Updating | Cause::SessionLimit)
    }
}
