// SPDX-License-Identifier: AGPL-3.0-or-later
//! The secrets of a BMC, in every form in which the BMC may repeat them. They are removed from its responses before
//! those are stored or shown.
//!
//! Not hidden: a secret shorter than [`CHARS_MIN`], a secret that is split, and forms that are not in [`forms`].

use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Shorter secrets occur within too many words.
const CHARS_MIN: usize = 4;
/// Shorter secrets are hidden only as whole words: `admin` is part of `Administrators`.
const CHARS_ANYWHERE: usize = 8;
/// Most forms of secrets; a visit has one or two sessions.
const FORMS_MAX: usize = 128;

/// Shortest run of URL-safe characters that may be the secret of a media URL, which consists of hex digits. A run
/// with other letters and without digits is a word, such as the key of a long MessageId.
const SECRET_CHARS_MIN: usize = 32;

/// A password. Its Debug output is `***`, and its memory is overwritten on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(text.into())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl From<Zeroizing<String>> for Secret {
    fn from(text: Zeroizing<String>) -> Secret {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

/// The secrets of one BMC.
#[derive(Default)]
pub(crate) struct Secrets {
    /// Longest first, because a shorter form may be part of a longer one.
    forms: RwLock<Vec<Zeroizing<String>>>,
}

impl Secrets {
    /// The secrets of a login, including the form in which Basic sends user name and password together.
    pub fn of_login(username: &str, password: &str) -> Secrets {
        let secrets = Secrets::default();
        let basic = Zeroizing::new(format!("{username}:{password}"));
        secrets.put(base64_forms(basic.as_bytes()));
        secrets.add(password);
        secrets
    }

    /// Adds a secret to hide.
    pub fn add(&self, secret: &str) {
        if secret.chars().count() >= CHARS_MIN {
            self.put(forms(secret));
        }
    }

    fn put(&self, new: Vec<Zeroizing<String>>) {
        let mut forms = self.forms.write().unwrap_or_else(PoisonError::into_inner);
        for form in new {
            if forms.len() < FORMS_MAX && !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// Replaces secrets in a text with `***`, those of this BMC and those of media URLs.
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.hide_own(text) {
            Cow::Borrowed(text) => without_url_secrets(text),
            Cow::Owned(text) => Cow::Owned(without_url_secrets(&text).into_owned()),
        }
    }

    /// Replaces only secrets of this BMC with `***`. Possible secrets of URLs stay, and so do UUIDs.
    pub fn hide_own<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut shown = Cow::Borrowed(text);
        for form in self.forms.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(without) = without(&shown, form) {
                shown = Cow::Owned(without);
            }
        }
        shown
    }
}

/// Removes possible secrets of media URLs, which a BMC may repeat in its text.
fn without_url_secrets(text: &str) -> Cow<'_, str> {
    let is_url_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_word = |run: &str| {
        let is_hex = run.bytes().all(|byte| byte.is_ascii_hexdigit());
        !is_hex && !run.bytes().any(|byte| byte.is_ascii_digit())
    };
    let may_be_secret = |run: &str| run.len() >= SECRET_CHARS_MIN && !is_word(run);
    if !text.split(|c| !is_url_safe(c)).any(may_be_secret) {
        return text.into();
    }
    let mut shown = String::new();
    for piece in text.split_inclusive(|c| !is_url_safe(c)) {
        let run = piece.trim_end_matches(|c| !is_url_safe(c));
        if may_be_secret(run) {
            shown.push_str("***");
            shown.push_str(&piece[run.len()..]);
        } else {
            shown.push_str(piece);
        }
    }
    shown.into()
}

/// The text without this form of a secret. `None` if it does not contain the form.
fn without(text: &str, form: &str) -> Option<String> {
    let is_word_only = form.chars().count() < CHARS_ANYWHERE;
    let mut shown = String::new();
    let mut kept = 0;
    for (at, _) in text.match_indices(form) {
        let (before, after) = (&text[..at], &text[at + form.len()..]);
        let is_part = before.chars().next_back().is_some_and(char::is_alphanumeric)
            || after.chars().next().is_some_and(char::is_alphanumeric);
        if is_word_only && is_part {
            continue;
        }
        shown.push_str(&text[kept..at]);
        shown.push_str("***");
        kept = at + form.len();
    }
    (kept > 0).then(|| shown + &text[kept..])
}

/// All forms of a secret: unchanged, and as programs write it into JSON, URLs, forms, HTML and headers.
fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let json = in_json(secret);
    let mut all = vec![
        secret.to_owned(),
        in_json(&json),
        json.replace('/', "\\/"),
        in_ascii_json(&json),
        json,
        percent(secret, "%20", false),
        percent(secret, "%20", true),
        percent(secret, "+", false),
        html(secret, ["&#39;", "&quot;"]),
        html(secret, ["&#x27;", "&#34;"]),
        html(secret, ["&apos;", "&#x22;"]),
    ];
    all.dedup();
    let mut forms: Vec<_> = all.into_iter().map(Zeroizing::new).collect();
    forms.extend(base64_forms(secret.as_bytes()));
    forms
}

fn base64_forms(bytes: &[u8]) -> Vec<Zeroizing<String>> {
    // Padded forms first, otherwise the padding would remain.
    [STANDARD, URL_SAFE, STANDARD_NO_PAD, URL_SAFE_NO_PAD]
        .iter()
        .map(|engine| Zeroizing::new(engine.encode(bytes)))
        .collect()
}

/// As the content of a JSON string (RFC 8259, section 7).
fn in_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// The same, as written by programs that escape everything beyond ASCII.
fn in_ascii_json(text: &str) -> String {
    let mut units = [0; 2];
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter.is_ascii() {
            true => escaped.push(letter),
            false => {
                for unit in letter.encode_utf16(&mut units) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    escaped
}

/// RFC 3986, section 2: everything but unreserved characters is escaped.
fn percent(text: &str, space: &str, is_lower: bool) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push_str(space),
            _ if is_lower => escaped.push_str(&format!("%{byte:02x}")),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn html(text: &str, [apostrophe, quote]: [&str; 2]) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', apostrophe).replace('"', quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = r#"k€y "1"/<b>&'x' %\+"#;

    #[test]
    fn a_password_is_hidden_in_every_form_in_which_it_is_repeated() {
        let secrets = Secrets::of_login("root", PASSWORD);
        secrets.add("s3ss10n-t0k3n");
        for echo in [
            PASSWORD,
            r#"k€y \"1\"/<b>&'x' %\\+"#,
            r#"k€y \"1\"\/<b>&'x' %\\+"#,
            r#"k\u20acy \"1\"/<b>&'x' %\\+"#,
            r#"k€y \\\"1\\\"/<b>&'x' %\\\\+"#,
            "k%E2%82%ACy%20%221%22%2F%3Cb%3E%26%27x%27%20%25%5C%2B",
            "k%e2%82%acy%20%221%22%2f%3cb%3e%26%27x%27%20%25%5c%2b",
            "k%E2%82%ACy+%221%22%2F%3Cb%3E%26%27x%27+%25%5C%2B",
            r"k€y &quot;1&quot;/&lt;b&gt;&amp;&#39;x&#39; %\+",
            r"k€y &#34;1&#34;/&lt;b&gt;&amp;&#x27;x&#x27; %\+",
            r"k€y &#x22;1&#x22;/&lt;b&gt;&amp;&apos;x&apos; %\+",
            // `user:password` as sent by Basic, and the password alone.
            "cm9vdDpr4oKseSAiMSIvPGI+Jid4JyAlXCs=",
            "cm9vdDpr4oKseSAiMSIvPGI-Jid4JyAlXCs=",
            "cm9vdDpr4oKseSAiMSIvPGI+Jid4JyAlXCs",
            "a+KCrHkgIjEiLzxiPiYneCcgJVwr",
            "s3ss10n-t0k3n",
        ] {
            let said = format!("bad login: {echo}; try again");
            assert_eq!(secrets.hide(&said), "bad login: ***; try again", "{echo}");
        }
    }

    #[test]
    fn a_short_password_is_hidden_as_a_word_and_a_shorter_one_is_not() {
        for (password, said, expected) in [
            ("admin", "user admin of Administrators", "user *** of Administrators"),
            ("admin", "\"admin\"", "\"***\""),
            ("admin", "administrator", "administrator"),
            ("calvin12", "xcalvin12x", "x***x"),
            ("On", "PowerState is On", "PowerState is On"),
            ("", "anything", "anything"),
        ] {
            assert_eq!(Secrets::of_login("u", password).hide(said), expected, "{password}: {said}");
        }
        let media = format!("/m/{}/task.iso", "ab".repeat(20));
        assert_eq!(Secrets::default().hide(&media), "/m/***/task.iso");
    }

    #[test]
    fn a_media_url_in_a_bmcs_words_loses_its_secret() {
        let token = "0123456789abcdef".repeat(3);
        for (text, expected) in [
            (
                format!("cannot read https://c:8443/m/{token}/task.iso."),
                "cannot read https://c:8443/m/***/task.iso.",
            ),
            (format!("bad image '{token}'"), "bad image '***'"),
            (token.clone(), "***"),
            (format!("é{token}é"), "é***é"),
            (
                "iLO.2.15.ResourceInUse at /redfish/v1/Systems/1".into(),
                "iLO.2.15.ResourceInUse at /redfish/v1/Systems/1",
            ),
            (
                "iLO.2.15.MaxVirtualMediaConnectionEstablished".into(),
                "iLO.2.15.MaxVirtualMediaConnectionEstablished",
            ),
            (String::new(), ""),
        ] {
            assert_eq!(without_url_secrets(&text), expected, "{text}");
        }
    }
}
