// SPDX-License-Identifier: AGPL-3.0-or-later
//! Known messages of BMCs, each with its cause: by their keys, and by phrases that occur in messages of many makers.
//! How a message is found in a response is in `refusal`.
//!
//! A key is the last part of a MessageId. Registry and version are ignored: the same key means the same in
//! `Base.1.18`, `ExtendedError.1.2` and `iLO.2.8`, and each firmware has different versions.

use crate::cause::Cause;

/// Keys of known messages. Sources: DMTF registries Base, Update, License and ResourceEvent (DSP8011); HPE iLO 4, 5 and
/// 6 registries; Dell's Event and Error Message Reference; Supermicro, AMI, Lenovo and Huawei as seen in public
/// reports.
const KEYS: &[(Cause, &[&str])] = &[
    (
        Cause::InPost,
        &[
            "UnableToModifyDuringSystemPOST",
            "UnsupportedOperationInSystemBIOS",
            "SystemInPOST",
            "ServerInPOST",
        ],
    ),
    (
        Cause::NoLicence,
        &[
            "LicenseKeyRequired",
            "LicenseRequired",
            "NotLicensed",
            "OemLicenseNotPassed",
            "NoValidLicense",
            "LicenseNotPassed",
            "LicenseNotInstalled",
            "LIC501",
        ],
    ),
    (
        Cause::NoPrivilege,
        &[
            "InsufficientPrivilege",
            "InsufficientPrivilegeForProperty",
            "RestrictedRole",
            "RestrictedPrivilege",
            "PropertyValueModifiedNotAllowed",
            "RAC0506",
        ],
    ),
    (
        Cause::NoSuchValue,
        &[
            "PropertyValueFormatError",
            "PropertyValueNotInList",
            "PropertyValueTypeError",
            "PropertyValueOutOfRange",
            "PropertyValueError",
            "PropertyValueIncorrect",
            "ParameterValueFormatError",
            "QueryParameterValueFormatError",
            "ActionParameterValueNotInList",
            "ActionParameterValueFormatError",
            "ActionParameterValueTypeError",
            "ActionParameterValueOutOfRange",
            "ActionParameterValueError",
            "ActionNotSupported",
            "ActionDeprecated",
        ],
    ),
    (
        Cause::InUse,
        &[
            "ResourceInUse",
            "MaxVirtualMediaConnectionEstablished",
            "VirtualMediaInUse",
            "UnableToModifyWhileKVMIPConnected",
            "AlreadyInProgress",
            "VRM0021",
        ],
    ),
    (
        Cause::NotReady,
        &[
            "ServiceTemporarilyUnavailable",
            "ServiceInUnknownState",
            "ServiceShuttingDown",
            "ResourceInStandby",
            "ResourceNotReadyRetry",
            "ResourceExhaustion",
            "OperationTimeout",
            "ResetInProgress",
            "SystemBusy",
            "RateLimitExceeded",
            "SYS518",
            "SYS537",
        ],
    ),
    (
        Cause::Updating,
        &[
            "FirmwareFlashAlreadyInProgress",
            "FWUpdateInProgress",
            "UpdateInProgress",
            "ResourceBeingFlashed",
        ],
    ),
    (
        Cause::SessionLimit,
        &[
            "SessionLimitExceeded",
            "SessionLimitReached",
            "MaxSessionsReached",
            "MaximumSessionsReached",
            "TooManySessions",
            "CreateLimitReachedForResource",
            "RAC0218",
            "RAC0219",
        ],
    ),
    (
        Cause::PasswordChange,
        &[
            "PasswordChangeRequired",
            "PasswordResetRequired",
            "PasswordExpired",
            "PasswordNeedReset",
            "PasswordNeedsReset",
        ],
    ),
    (
        Cause::AccountLocked,
        &[
            "AccountLocked",
            "AccountLockedOut",
            "UserLocked",
            "UserAccountLocked",
            "LoginAttemptDelayed",
            "LoginAttemptDelayedSeconds",
            "AuthorizationUserLocked",
            "IPBlocked",
        ],
    ),
    (
        Cause::BadCredentials,
        &[
            "UnauthorizedLoginAttempt",
            "LoginFailed",
            "AuthorizationFailed",
            "AuthenticationFailed",
            "InvalidCredentials",
        ],
    ),
    (Cause::Lockdown, &["ServerConfigurationLockEnabled", "LockdownModeEnabled", "RAC0934"]),
    (
        Cause::PowerState,
        &[
            "InvalidOperationForSystemState",
            "ChassisPowerStateOnRequired",
            "ChassisPowerStateOffRequired",
            "HostPoweredOff",
            "PSU501",
            "PSU502",
        ],
    ),
    (
        Cause::NotFetched,
        &[
            "CouldNotEstablishConnection",
            "ResourceAtUriUnauthorized",
            "ResourceAtUriInUnknownFormat",
            "SourceDoesNotSupportProtocol",
            "NetworkNameResolutionFailed",
            "NetworkNameResolutionNotConfigured",
        ],
    ),
];

/// Phrases in messages with an unknown key, in lower case and in the order of the search. A key is searched as words:
/// `DeviceBusyInPost` is `device busy in post`.
const PHRASES: &[(Cause, &[&str])] = &[
    // First: otherwise "wrong password, or the account is locked" would let a wrong password be sent again.
    (
        Cause::BadCredentials,
        &[
            "incorrect user name or password",
            "incorrect username or password",
            "incorrect password",
            "invalid user name or password",
            "invalid username or password",
            "invalid password",
            "invalid credential",
            "password is incorrect",
            "password is invalid",
            "password is wrong",
            "password incorrect",
            "wrong password",
            "user name or password",
            "username or password",
        ],
    ),
    (
        Cause::SessionLimit,
        &[
            "session limit",
            "too many session",
            "maximum number of session",
            "maximum session",
            "max session",
            "number of sessions",
            "sessions exceed",
            "no free session",
        ],
    ),
    (
        Cause::PasswordChange,
        &[
            "password change required",
            "password must be changed",
            "password has expired",
            "password is expired",
            "password expired",
            "change the password",
            "password needs to be changed",
            "change the default password",
        ],
    ),
    (
        Cause::AccountLocked,
        &[
            "account is locked",
            "account locked",
            "account has been locked",
            "user is locked",
            "user locked",
            "locked out",
            "temporarily blocked",
            "address is blocked",
            "ip blocked",
        ],
    ),
    (
        Cause::NoLicence,
        &[
            "license is required",
            "license key is required",
            "license required",
            "license key required",
            "requires a license",
            "required license",
            "not licensed",
            "unlicensed",
            "no license",
            "license is missing",
            "license is not",
            "license not",
            "license missing",
            "without a license",
            "licence is required",
            "requires a licence",
        ],
    ),
    (
        Cause::InPost,
        &[
            // `POST` alone would also match the HTTP method.
            "during post",
            "during system post",
            "is in post",
            "busy in post",
            "still in post",
            "in post state",
            "post is in progress",
            "post in progress",
            "power-on self",
            "power on self",
        ],
    ),
    (
        Cause::Updating,
        &[
            "firmware update is in progress",
            "firmware upgrade is in progress",
            "update in progress",
            "upgrade in progress",
            "being updated",
            "is updating",
            "flash in progress",
        ],
    ),
    (Cause::NoSuchValue, &["of a different format"]),
    (Cause::Lockdown, &["lockdown mode", "lock down mode"]),
    (
        Cause::NoPrivilege,
        &["insufficient privilege", "does not have the privilege", "not have sufficient privilege"],
    ),
    (
        Cause::InUse,
        &["already in use", "is in use", "resource in use", "being used by", "already in progress"],
    ),
    (
        Cause::NotReady,
        &[
            "temporarily unavailable",
            "not ready",
            "try again later",
            "is starting",
            "is initializing",
            "is booting",
            "data sources are unavailable",
            "is busy",
        ],
    ),
];

/// The cause of a known message key.
pub(crate) fn of_key(key: &str) -> Option<Cause> {
    let has = |keys: &&[&str]| keys.iter().any(|known| known.eq_ignore_ascii_case(key));
    KEYS.iter().find(|(_, keys)| has(keys)).map(|(cause, _)| *cause)
}

/// The cause by the phrases in a message's text, or in an unknown key.
pub(crate) fn of_words(text: &str) -> Option<Cause> {
    let text = text.to_lowercase();
    // Matches whole words, or their plural.
    let is_word = |at: usize, phrase: &str| {
        let before = text[..at].chars().next_back();
        let after = text[at + phrase.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric)
            && !after.is_some_and(|letter| letter.is_alphanumeric() && letter != 's')
    };
    let has = |phrases: &&[&str]| {
        phrases
            .iter()
            .any(|phrase| text.match_indices(phrase).any(|(at, phrase)| is_word(at, phrase)))
    };
    PHRASES.iter().find(|(_, phrases)| has(phrases)).map(|(cause, _)| *cause)
}

/// The words of a key: `UnableToModifyDuringSystemPOST` as `Unable To Modify During System POST`.
pub(crate) fn words_of_key(key: &str) -> String {
    let letters: Vec<char> = key.chars().collect();
    let mut words = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| letters.get(before));
        let after = letters.get(at + 1);
        let begins_word = letter.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase() || before.is_ascii_digit())
                || before.is_some_and(|before| before.is_uppercase())
                    && after.is_some_and(|after| after.is_lowercase()));
        if begins_word {
            words.push(' ');
        }
        words.push(*letter);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_in_no_table_is_known_by_its_words() {
        for (text, cause) in [
            (words_of_key("DeviceBusyInPost"), Some(Cause::InPost)),
            (words_of_key("OEMLicenseRequiredForMedia"), Some(Cause::NoLicence)),
            (words_of_key("MaxSessionsExceeded"), Some(Cause::SessionLimit)),
            ("A required license is missing or expired.".into(), Some(Cause::NoLicence)),
            ("The maximum number of sessions is reached".into(), Some(Cause::SessionLimit)),
            ("The account has been locked for 5 minutes".into(), Some(Cause::AccountLocked)),
            (
                "Wrong user name or password, or the user is locked".into(),
                Some(Cause::BadCredentials),
            ),
            ("The password must be changed before access".into(), Some(Cause::PasswordChange)),
            ("You have insufficient privileges".into(), Some(Cause::NoPrivilege)),
            // `POST` as the HTTP method, and as a part of another word.
            ("send a POST to this URI".into(), None),
            ("bad value in POST body".into(), None),
            ("the office is in postal code 1".into(), None),
            ("The action is not supported".into(), None),
        ] {
            assert_eq!(of_words(&text), cause, "{text}");
        }
    }

    #[test]
    fn no_key_is_of_two_causes() {
        let mut keys: Vec<String> =
            KEYS.iter().flat_map(|(_, keys)| *keys).map(|key| key.to_lowercase()).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
