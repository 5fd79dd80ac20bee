// SPDX-License-Identifier: AGPL-3.0-or-later
//! Names in certificates, and patterns for them. A pattern only matches names of its own kind: a URI never matches a
//! DNS pattern, however it ends. Pure.

use std::fmt;

use crate::access::role_bindings::{self, RoleBinding};

/// SPIFFE-ID, section 2.3.
const SPIFFE_BYTES_MAX: usize = 2048;

/// A pattern of names to which rights are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// In lower case.
    Dns(String),
    /// Names that end with this suffix. It begins with a dot; in lower case.
    DnsBelow(String),
    Uri(String),
    /// URIs that begin with this prefix, which ends with a slash.
    UriBelow(String),
}

/// `ROLE=NAME`.
pub fn parse_role(text: &str) -> Result<(RoleBinding, Pattern), String> {
    with_pattern(role_bindings::role(text, "write ROLE=NAME, such as operator=ci.example.org")?)
}

/// `PREFIX=NAME`.
pub fn parse_publish(text: &str) -> Result<(RoleBinding, Pattern), String> {
    with_pattern(role_bindings::publish(text, "write PREFIX=NAME, such as ci/=ci.example.org")?)
}

fn with_pattern((binding, name): (RoleBinding, &str)) -> Result<(RoleBinding, Pattern), String> {
    Ok((binding, pattern(name)?))
}

/// Parses `dns:NAME`, `uri:NAME`, or a name whose form reveals its kind.
fn pattern(name: &str) -> Result<Pattern, String> {
    match name.split_once(':') {
        Some(("dns", name)) => dns_pattern(name),
        Some(("uri", name)) => uri_pattern(name),
        Some(_) if name.contains("://") => uri_pattern(name),
        Some((kind, _)) => Err(format!(
            "names of the kind {kind:?} count for nothing; write a DNS name (dns:ci.example.org) or a URI \
             (uri:spiffe://example.org/ci)"
        )),
        None => dns_pattern(name),
    }
}

fn dns_pattern(name: &str) -> Result<Pattern, String> {
    let name = name.to_ascii_lowercase();
    let (below, rest) = match name.strip_prefix('*') {
        Some(rest) => (true, rest),
        None => (false, name.as_str()),
    };
    let labels = if below { rest.strip_prefix('.') } else { Some(rest) };
    let is_label = |label: &str| {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(is_of_name)
    };
    if !labels.is_some_and(|labels| labels.split('.').all(is_label)) {
        return Err(
            "write a DNS name, such as ci.example.org, or *.ci.example.org for all below".into()
        );
    }
    Ok(if below { Pattern::DnsBelow(rest.to_owned()) } else { Pattern::Dns(name) })
}

fn uri_pattern(name: &str) -> Result<Pattern, String> {
    let (below, uri) = match name.strip_suffix('*') {
        Some(rest) => (true, rest),
        None => (false, name),
    };
    // A prefix is checked with an example below it.
    let example = if below { format!("{uri}x") } else { uri.to_owned() };
    let has_directory = uri.ends_with('/') && !uri.ends_with("://");
    if below && !has_directory || !is_uri(&example) {
        return Err("write a URI, such as spiffe://example.org/ci, or spiffe://example.org/ci/* for all below \
                    it; without empty parts, dots alone, %, ? and #"
            .into());
    }
    Ok(if below { Pattern::UriBelow(uri.to_owned()) } else { Pattern::Uri(uri.to_owned()) })
}

/// Whether all readers interpret a URI alike: it has nothing that only some of them normalise.
fn is_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else { return false };
    let (authority, path) =
        rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && !b"%?#\\*".contains(&byte));
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && is_plain(part);
    let is_sound = scheme
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'+')
        && !scheme.is_empty()
        && !authority.is_empty()
        && is_plain(authority)
        && path.is_none_or(|path| path.split('/').all(is_part));
    is_sound && (scheme != "spiffe" || is_spiffe(uri, authority, path))
}

/// SPIFFE-ID, sections 2.1 to 2.3: lower case in the trust domain, no port, no user, few characters in the path.
fn is_spiffe(uri: &str, domain: &str, path: Option<&str>) -> bool {
    let is_of_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
    uri.len() <= SPIFFE_BYTES_MAX
        && domain.bytes().all(is_of_domain)
        && path.is_none_or(|path| path.bytes().all(is_of_path))
}

/// The names of one certificate that are considered.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    uris: Vec<String>,
    dns: Vec<String>,
}

impl Names {
    /// A certificate with a SPIFFE id has no other URI (X509-SVID, section 2): with two URIs, none is considered.
    pub fn of(uris: &[&str], dns: &[&str]) -> Names {
        let is_svid = uris.iter().any(|uri| is_of_scheme(uri, "spiffe"));
        let counting = if is_svid && uris.len() > 1 { &[][..] } else { uris };
        Names {
            uris: counting.iter().filter(|uri| is_uri(uri)).map(|uri| (*uri).to_owned()).collect(),
            dns: dns.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    pub fn fit(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Dns(whole) => self.dns.contains(whole),
            Pattern::DnsBelow(end) => {
                self.dns.iter().any(|name| name.len() > end.len() && name.ends_with(end.as_str()))
            }
            Pattern::Uri(whole) => self.uris.contains(whole),
            Pattern::UriBelow(begin) => self
                .uris
                .iter()
                .any(|name| name.len() > begin.len() && name.starts_with(begin.as_str())),
        }
    }
}

/// For the audit log.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names: Vec<&str> = self.uris.iter().chain(&self.dns).map(String::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

fn is_of_scheme(uri: &str, scheme: &str) -> bool {
    uri.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, uris: &[&str], dns: &[&str]) -> bool {
        Names::of(uris, dns).fit(&parse_role(&format!("admin={pattern}")).unwrap().1)
    }

    #[test]
    fn a_role_hangs_on_a_dns_name_or_on_what_is_below_one() {
        for (pattern, name, expected) in [
            ("ci.example.org", "ci.example.org", true),
            ("dns:ci.example.org", "ci.example.org", true),
            ("CI.example.org", "ci.EXAMPLE.org", true),
            ("ci.example.org", "xci.example.org", false),
            ("ci.example.org", "a.ci.example.org", false),
            ("*.example.org", "ci.example.org", true),
            ("*.example.org", "a.ci.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "ci.example.org.evil", false),
            ("*.example.org", "ciexample.org", false),
        ] {
            assert_eq!(fits(pattern, &[], &[name]), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_role_hangs_on_a_uri_or_on_what_is_below_one() {
        const OPS: &str = "spiffe://example.org/ops/*";
        for (pattern, name, expected) in [
            (OPS, "spiffe://example.org/ops/ada", true),
            (OPS, "spiffe://example.org/ops/team/ada", true),
            (OPS, "spiffe://example.org/ops/", false),
            (OPS, "spiffe://example.org/ops", false),
            (OPS, "spiffe://example.org/opsx/ada", false),
            (OPS, "spiffe://example.org/ops/../ci", false),
            (OPS, "spiffe://example.org/ops/./ada", false),
            (OPS, "spiffe://example.org/ops//ada", false),
            (OPS, "spiffe://example.org/ops/ada/", false),
            (OPS, "spiffe://example.org/ops/%2e%2e/ci", false),
            (OPS, "spiffe://example.org/ops/ada?x", false),
            (OPS, "spiffe://example.org/ops/ada#x", false),
            (OPS, "spiffe://example.org:443/ops/ada", false),
            (OPS, "spiffe://user@example.org/ops/ada", false),
            (OPS, "spiffe://EXAMPLE.org/ops/ada", false),
            (OPS, "SPIFFE://example.org/ops/ada", false),
            (OPS, "spiffe://example.org/ops/a da", false),
            (OPS, "spiffe://example.org/ops/a\u{1b}da", false),
            ("uri:spiffe://example.org/ci", "spiffe://example.org/ci", true),
            ("spiffe://example.org/ci", "spiffe://example.org/ci/x", false),
            ("https://example.org/ops/*", "https://example.org/ops/ada", true),
            ("https://example.org/ops/*", "https://example.org/ops/../ci", false),
        ] {
            assert_eq!(fits(pattern, &[name], &[]), expected, "{pattern} {name}");
        }
        let long = format!("spiffe://example.org/ops/{}", "x".repeat(SPIFFE_BYTES_MAX));
        assert!(!fits(OPS, &[&long], &[]));
        // With two URIs in one certificate, none is considered.
        assert!(!fits(OPS, &["spiffe://example.org/ops/ada", "https://x.org/y"], &[]));
    }

    #[test]
    fn a_name_of_one_kind_is_not_taken_for_one_of_another() {
        for (pattern, uris, dns) in [
            ("*.example.org", vec!["spiffe://evil.org/x.example.org"], vec![]),
            ("*.example.org", vec!["urn:x.example.org"], vec![]),
            ("*.example.org", vec!["https://x.example.org"], vec![]),
            ("ci.example.org", vec!["ci.example.org"], vec![]),
            ("https://example.org/x", vec![], vec!["https://example.org/x"]),
        ] {
            assert!(!fits(pattern, &uris, &dns), "{pattern} {uris:?} {dns:?}");
        }
    }

    #[test]
    fn a_pattern_that_may_mean_two_things_is_refused() {
        for bad in [
            "admin=*",
            "admin=",
            "admin",
            "root=x",
            "admin=*x*",
            "admin=a*b",
            "publisher=x",
            "admin=ci.*",
            "admin=*example.org",
            "admin=a..b",
            "admin=spiffe://example.org/ops*",
            "admin=*://x",
            "admin=spiffe://*",
            "admin=spiffe://example.org/../x",
            "admin=email:ada@example.org",
            "admin=ip:192.0.2.1",
            "admin=uri:ci.example.org",
            "admin=dns:https://x",
        ] {
            assert!(parse_role(bad).is_err(), "{bad}");
        }
    }
}
