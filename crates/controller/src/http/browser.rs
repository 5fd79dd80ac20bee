// SPDX-License-Identifier: AGPL-3.0-or-later
//! Detects requests that a browser sends on behalf of another site's page (cross-site request forgery). A browser
//! attaches a stored password and a client certificate by itself, and its network location gives it access as well;
//! it never attaches a bearer token by itself.
//!
//! Current browsers say which site a request comes from (Fetch Metadata, section 2.4). Older ones name the page's
//! origin with every request that may change something (RFC 6454, section 7), or the page itself (`Referer`). A
//! request without any of these headers comes from a program.

use std::sync::Arc;

use axum::http::{Extensions, HeaderMap, HeaderValue, header};
use axum_server::tls::TlsInfo;
use url::Url;

/// Whether the request comes from a page that this listener did not serve.
pub fn is_of_another_sites_page(headers: &HeaderMap, extensions: &Extensions) -> bool {
    if let Some(site) = headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        return site != b"same-origin" && site != b"none";
    }
    let is_tls = extensions.get::<Arc<TlsInfo>>().is_some();
    let named = headers.get_all(header::ORIGIN).iter().chain(headers.get_all(header::REFERER));
    named.into_iter().any(|page| !is_ours(page, headers.get(header::HOST), is_tls))
}

/// Whether a page's address has the scheme, host and port to which the request was sent. `null`, the origin of pages
/// that hide theirs, does not.
fn is_ours(page: &HeaderValue, host: Option<&HeaderValue>, is_tls: bool) -> bool {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let (Some(page), Some(host)) = (text(page), host.and_then(text)) else { return false };
    let Ok(page) = Url::parse(&page) else { return false };
    let scheme = page.scheme();
    // If this listener has no TLS, a proxy in front of it may have.
    if scheme != "https" && (is_tls || scheme != "http") {
        return false;
    }
    Url::parse(&format!("{scheme}://{host}/")).is_ok_and(|own| own.origin() == page.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_ours_by_scheme_host_and_port() {
        for (page, host, over_tls, without) in [
            ("https://shoal.example:8443", "shoal.example:8443", true, true),
            ("https://SHOAL.example:8443", "shoal.example:8443", true, true),
            ("https://shoal.example", "shoal.example", true, true),
            ("https://shoal.example", "shoal.example:443", true, true),
            ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443", true, true),
            ("https://shoal.example:8443/page?x", "shoal.example:8443", true, true),
            ("http://shoal.example:8443", "shoal.example:8443", false, true),
            ("http://shoal.example", "shoal.example", false, true),
            ("http://shoal.example:443", "shoal.example:443", false, true),
            ("https://shoal.example", "shoal.example:8443", false, false),
            ("https://shoal.example:8444", "shoal.example:8443", false, false),
            ("https://evil.example", "shoal.example", false, false),
            ("https://shoal.example.evil", "shoal.example", false, false),
            ("https://shoal.example@evil.example", "shoal.example", false, false),
            ("null", "shoal.example", false, false),
            ("", "shoal.example", false, false),
            ("file:///etc", "shoal.example", false, false),
            ("shoal.example", "shoal.example", false, false),
            ("https://shoal.example", "", false, false),
            ("chrome-extension://shoal.example", "shoal.example", false, false),
        ] {
            let value = |text: &str| HeaderValue::from_str(text).unwrap();
            for (is_tls, expected) in [(true, over_tls), (false, without)] {
                let got = is_ours(&value(page), Some(&value(host)), is_tls);
                assert_eq!(got, expected, "{page} at {host}, TLS {is_tls}");
            }
            assert!(!is_ours(&value(page), None, true), "{page} without a host");
        }
    }

    #[test]
    fn each_header_that_names_another_page_counts() {
        const OURS: &str = "https://h:1/";
        const OTHER: &str = "https://evil.example/";
        for (headers, expected) in [
            (vec![], false),
            (vec![("origin", OURS)], false),
            (vec![("origin", OTHER)], true),
            (vec![("origin", "null")], true),
            (vec![("origin", OURS), ("origin", OTHER)], true),
            (vec![("referer", OURS)], false),
            (vec![("referer", OTHER)], true),
            (vec![("origin", OURS), ("referer", OTHER)], true),
            // The browser's own statement outweighs a comparison of addresses.
            (vec![("sec-fetch-site", "same-origin"), ("origin", OTHER)], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "same-site"), ("origin", OURS)], true),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "new")], true),
        ] {
            let mut map = HeaderMap::new();
            map.insert(header::HOST, HeaderValue::from_static("h:1"));
            for (name, value) in &headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            let got = is_of_another_sites_page(&map, &Extensions::new());
            assert_eq!(got, expected, "{headers:?}");
        }
    }
}
