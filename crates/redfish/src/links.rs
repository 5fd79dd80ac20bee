// SPDX-License-Identifier: AGPL-3.0-or-later
//! Links of a BMC: turning them into URLs, comparing them, and following redirects. A link is used as the BMC wrote
//! it, with its final slash. Credentials are sent only to the BMC's own authority.

use reqwest::{Method, Response, header};
use serde_json::Value;
use url::Url;

/// Most redirects of one request. BMCs add a slash or a version, which makes two; more is a loop.
pub(crate) const REDIRECTS_MAX: usize = 5;

/// The link in a reference (`@odata.id`), as the BMC writes it.
pub(crate) fn of(value: &Value) -> Option<String> {
    value["@odata.id"].as_str().filter(|path| !path.is_empty()).map(str::to_owned)
}

/// The form of a link for comparisons: without scheme and authority, which only some BMCs write, and without the
/// final slash, which a BMC may write in one place and omit in another.
pub(crate) fn key(link: &str) -> &str {
    let path = match link.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |start| &rest[start..]),
        None => link,
    };
    path.trim_end_matches('/')
}

/// Whether both links lead to the same resource.
pub fn is_same(one: &str, other: &str) -> bool {
    key(one) == key(other)
}

/// The last segment of a link's path.
pub(crate) fn last_segment(link: &str) -> &str {
    key(link).rsplit('/').next().unwrap_or_default()
}

/// The path `name` below a link.
pub(crate) fn below(link: &str, name: &str) -> String {
    format!("{}/{name}", link.trim_end_matches('/'))
}

/// A link in a resource as a URL. Fails, with the reason, if it leads to another host.
pub(crate) fn within(base: &Url, link: &str) -> Result<Url, &'static str> {
    let url = base.join(link).map_err(|_| "it is not a URL")?;
    match url.origin() == base.origin() {
        true => Ok(url),
        false => Err("it leads to another host; it is not followed"),
    }
}

/// A link that the BMC created for the response to this request, at the host of the request. Some BMCs write a name
/// or an address of themselves that is valid only in their own network (stmcginnis/gofish#77).
pub(crate) fn at_home(asked: &Url, link: &str) -> Option<Url> {
    // By RFC 3986 this would be relative to the requested path, where no resource exists.
    let is_rootless = link.starts_with("redfish/");
    let named = match is_rootless {
        true => asked.join(&format!("/{link}")),
        false => asked.join(link.trim()),
    };
    let named = named.ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let mut url = asked.clone();
    url.set_path(named.path());
    url.set_query(named.query());
    url.set_fragment(None);
    Some(url)
}

/// The link of [`at_home`] as a path.
pub(crate) fn path_at_home(asked: &Url, link: &str) -> Option<String> {
    let url = at_home(asked, link)?;
    Some(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

/// Whether a response is a redirect, and where to.
pub(crate) enum Redirect {
    /// The response is not a redirect.
    None,
    To(Url),
    /// The reason why it is not followed.
    Refused(String),
}

/// Where a request that was sent to `asked` is redirected to. A change is sent again only if the status guarantees
/// that method and body stay the same (RFC 9110, 15.4). Otherwise the client might change a resource that it was not
/// asked to change.
pub(crate) fn redirect(method: &Method, asked: &Url, response: &Response) -> Redirect {
    let status = response.status().as_u16();
    let is_followed = match status {
        301..=303 => *method == Method::GET,
        307 | 308 => true,
        _ => return Redirect::None,
    };
    let location = response.headers().get(header::LOCATION);
    let Some(location) = location.and_then(|value| value.to_str().ok()) else {
        return Redirect::Refused("a redirect that does not say where to".into());
    };
    let Ok(url) = asked.join(location.trim()) else {
        return Redirect::Refused(format!("a redirect to {location:?}, which is not a URL"));
    };
    let to = shown(&url);
    if url.origin() != asked.origin() {
        let why = match (asked.scheme(), url.scheme()) {
            ("https", "http") => "it is not protected by TLS",
            _ => "it is another host",
        };
        return Redirect::Refused(format!("a redirect to {to}, which is not followed: {why}"));
    }
    if !is_followed {
        let why = format!("a {method} is sent again only after 307 and 308");
        return Redirect::Refused(format!("a redirect to {to}, which is not followed: {why}"));
    }
    Redirect::To(url)
}

/// The URL without credentials.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    // A URL that cannot have credentials contains none.
    if shown.set_username("").is_ok() {
        let _none = shown.set_password(None);
    }
    shown.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_the_same_however_it_is_linked() {
        let one = "/redfish/v1/Systems/1";
        for (link, is_so) in [
            ("/redfish/v1/Systems/1", true),
            ("/redfish/v1/Systems/1/", true),
            ("https://bmc/redfish/v1/Systems/1/", true),
            ("https://192.0.2.1:8443/redfish/v1/Systems/1", true),
            ("/redfish/v1/Systems/10", false),
            ("/redfish/v1/Systems", false),
            ("https://bmc", false),
            ("", false),
        ] {
            assert_eq!(is_same(one, link), is_so, "{link}");
        }
        assert_eq!(last_segment("/redfish/v1/Systems/1/"), "1");
        assert_eq!(
            below("/redfish/v1/Managers/1/", "Attributes"),
            below("/redfish/v1/Managers/1", "Attributes")
        );
    }

    #[test]
    fn a_link_of_another_name_is_followed_at_the_host_that_was_asked() {
        let asked = Url::parse("https://192.0.2.1:444/redfish/v1/SessionService/Sessions").unwrap();
        for (link, expected) in [
            ("https://bmc-42.example/redfish/v1/S/1", Some("/redfish/v1/S/1")),
            ("http://bmc-42.example:80/redfish/v1/S/1/", Some("/redfish/v1/S/1/")),
            ("//bmc-42.example/redfish/v1/S/1?a=b#c", Some("/redfish/v1/S/1?a=b")),
            ("/redfish/v1/S/1", Some("/redfish/v1/S/1")),
            ("redfish/v1/S/1", Some("/redfish/v1/S/1")),
            ("Sessions/1", Some("/redfish/v1/SessionService/Sessions/1")),
            ("file:///etc/passwd", None),
            ("mailto:root", None),
            ("https://", None),
        ] {
            assert_eq!(path_at_home(&asked, link).as_deref(), expected, "{link}");
            if let Some(url) = at_home(&asked, link) {
                assert_eq!(url.authority(), "192.0.2.1:444", "{link}");
            }
        }
    }
}
