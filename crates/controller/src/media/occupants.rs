// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is in the media slots of a BMC, and whose it is. A medium is this controller's if the store issued the token in
//! the URL that the slot shows. The address in that URL proves nothing, because the controller's own address may have
//! changed since.
//!
//! ```text
//! empty ──────────────────────────────────────────────▶ Nothing
//! token that the store issued ── to a job that is over, or to this job ──▶ Ours
//!      │                      └─ to another open job ──▶ Foreign
//!      └ no such token ── a remote console's medium ───▶ Foreign
//!                      ├─ the store put a medium here, and the slot may show that one ──▶ Ours
//!                      └─ else ───────────────────────▶ Foreign
//! ```
//!
//! A foreign medium is ejected only by a job that permits it, and never in a clean-up.

use std::collections::HashMap;

use redfish::{Machine, Slot};
use url::Url;

use crate::keys::TOKEN_BYTES;
use crate::store::Issued;

/// The name of the place `HttpBootUri`. The places of slots are named by their paths.
pub const HTTP_BOOT_URI: &str = "HttpBootUri";

/// The content of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    Nothing,
    /// A medium of this controller that no other job needs.
    Ours,
    /// A medium that is not this controller's, or that another job needs: not to be ejected. With its description.
    Foreign(String),
}

/// The content of each slot of a BMC, by its path, and of its `HttpBootUri`.
#[derive(Debug, Clone, Default)]
pub struct Occupants(HashMap<String, Occupant>);

impl Occupants {
    /// The content of a place; `Nothing` for a place that was not read.
    pub fn of(&self, place: &str) -> &Occupant {
        self.0.get(place).unwrap_or(&Occupant::Nothing)
    }

    /// Each place with a foreign medium, and the description of the medium, in the order of the slots.
    pub fn foreign<'m>(&self, machine: &'m Machine) -> Vec<(&'m str, &str)> {
        let slots = machine.slots.iter().map(|slot| slot.path.as_str());
        let places = slots.chain([HTTP_BOOT_URI]);
        places
            .filter_map(|place| match self.of(place) {
                Occupant::Foreign(what) => Some((place, what.as_str())),
                Occupant::Nothing | Occupant::Ours => None,
            })
            .collect()
    }

    pub fn set(&mut self, place: &str, occupant: Occupant) {
        self.0.insert(place.to_owned(), occupant);
    }
}

/// What the store and the settings know about the media of one BMC.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The job that looks, if any.
    pub job: Option<&'a str>,
    /// Slots into which this controller inserted a medium, and which were not seen empty since; each with the medium's
    /// file name.
    pub filled: &'a [(String, String)],
    /// The addresses from which media are served now.
    pub bases: [&'a Url; 2],
}

/// Finds a media token, by its form, in the image that a BMC shows. BMCs may show only a part of the URL.
pub fn token_of(image: &str) -> Option<&str> {
    let runs = image.split(|c: char| !c.is_ascii_alphanumeric());
    let is_hex = |run: &str| run.bytes().all(|byte| byte.is_ascii_hexdigit());
    runs.into_iter().find(|run| run.len() == 2 * TOKEN_BYTES && is_hex(run))
}

/// The content of a slot. `issued`: the job or probe for which the shown token was issued.
pub fn of_slot(known: &Known, slot: &Slot, issued: Option<&Issued>) -> Occupant {
    if !slot.is_occupied() {
        return Occupant::Nothing;
    }
    if let Some(issued) = issued {
        return of_issued(known.job, issued);
    }
    if slot.is_console {
        return Occupant::Foreign("a medium of a remote console".to_owned());
    }
    let mut names = known.filled.iter().filter(|(path, _)| *path == slot.path);
    match names.any(|(_, name)| may_be(known, slot, name)) {
        true => Occupant::Ours,
        false => Occupant::Foreign(words(slot)),
    }
}

/// The content of `HttpBootUri`: the URL that the firmware is to download.
pub fn of_url(known: &Known, url: &str, issued: Option<&Issued>) -> Occupant {
    match issued {
        Some(issued) => of_issued(known.job, issued),
        None => Occupant::Foreign(shown_image(url)),
    }
}

fn of_issued(job: Option<&str>, issued: &Issued) -> Occupant {
    match issued {
        Issued::Job { id, is_open: true } if job != Some(id) => {
            Occupant::Foreign(format!("a medium of job {id}, which is not over"))
        }
        Issued::Job { .. } | Issued::Probe => Occupant::Ours,
    }
}

/// Whether a slot that shows no known token may still have the medium of this name that this controller put there.
fn may_be(known: &Known, slot: &Slot, name: &str) -> bool {
    let Some(image) = &slot.image else {
        return slot.image_name.as_deref().is_none_or(|shown| shown == name);
    };
    let is_named = image.rsplit(['/', '\\']).next() == Some(name);
    match Url::parse(image) {
        // The BMC removed or cut off the token. With another token, or from another address, it is another medium.
        Ok(url) if url.has_host() => {
            let is_from_here = known.bases.iter().any(|base| base.origin() == url.origin());
            is_named && is_from_here && token_of(image).is_none()
        }
        // A URL that cannot be parsed is not a part of one of ours.
        _ => is_named && !image.contains("://"),
    }
}

/// Describes a foreign medium by what its slot shows.
fn words(slot: &Slot) -> String {
    match (&slot.image, &slot.image_name) {
        (Some(image), _) if Url::parse(image).is_ok_and(|url| url.has_host()) => shown_image(image),
        (_, Some(name)) => format!("a medium named {:?}", bounded(name)),
        (Some(_), None) => "a medium whose image is no URL".to_owned(),
        (None, None) => "a medium whose image the BMC does not tell".to_owned(),
    }
}

/// Longest image name in a description.
const NAME_CHARS_MAX: usize = 80;

fn bounded(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

/// An image's URL without the parts that may be secret: the login, the query, and path segments that may be tokens.
pub fn shown_image(image: &str) -> String {
    const SECRET_CHARS_MIN: usize = 32;
    let Ok(mut url) = Url::parse(image) else { return "(not a URL)".into() };
    let shown: Vec<String> = url
        .path_segments()
        .map(|parts| {
            let hidden = |part: &str| part.len() >= SECRET_CHARS_MIN;
            parts.map(|part| if hidden(part) { "***" } else { part }.to_owned()).collect()
        })
        .unwrap_or_default();
    url.set_path(&shown.join("/"));
    url.set_query(None);
    url.set_fragment(None);
    // This fails for a URL without a host, which has no login either.
    let _no_login = url.set_username("").and_then(|()| url.set_password(None));
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210";

    fn slot(image: Option<&str>, name: Option<&str>, is_console: bool) -> Slot {
        let machine = Machine::for_tests(&[("/s/1", &["CD"])]);
        let mut slot = machine.slots.into_iter().next().unwrap();
        [slot.image, slot.image_name] = [image, name].map(|text| text.map(str::to_owned));
        (slot.inserted, slot.is_console) = (true, is_console);
        slot
    }

    #[test]
    fn a_medium_is_ours_if_the_store_issued_it_or_put_what_may_be_it_there() {
        use Occupant::{Foreign, Ours};
        let base = Url::parse("https://192.0.2.1:8443").unwrap();
        let url = |base: &str, token: &str| format!("{base}/m/{token}/task.iso");
        let here = |token: &str| url("https://192.0.2.1:8443", token);
        let before = |token: &str| url("http://198.51.100.7:1", token);
        let foreign = |what: &str| Foreign(what.to_owned());
        let job = |id: &str, is_open| Some(Issued::Job { id: id.into(), is_open });
        let untold = foreign("a medium whose image the BMC does not tell");
        for (what, image, issued, filled, expected) in [
            ("ours, by today's address", Some(here(TOKEN)), job("j1", true), "", Ours),
            ("ours, by a former address", Some(before(TOKEN)), job("j1", true), "", Ours),
            ("of a former job", Some(before(TOKEN)), job("j0", false), "", Ours),
            ("of a probe", Some(before(TOKEN)), Some(Issued::Probe), "", Ours),
            (
                "of another job that is open",
                Some(here(TOKEN)),
                job("j2", true),
                "task.iso",
                foreign("a medium of job j2, which is not over"),
            ),
            (
                "only the form of ours",
                Some(before(OTHER)),
                None,
                "task.iso",
                foreign("http://198.51.100.7:1/m/***/task.iso"),
            ),
            (
                "today's address, and not issued",
                Some(here(OTHER)),
                None,
                "task.iso",
                foreign("https://192.0.2.1:8443/m/***/task.iso"),
            ),
            ("no image", None, None, "", untold.clone()),
            ("no image, where one was put", None, None, "task.iso", Ours),
            ("a part of the URL", Some("task.iso".into()), None, "task.iso", Ours),
            ("a path", Some("/m/x/task.iso".into()), None, "task.iso", Ours),
            (
                "a part, and nothing was put there",
                Some("task.iso".into()),
                None,
                "",
                foreign("a medium whose image is no URL"),
            ),
            (
                "another name than what was put there",
                Some("rescue.iso".into()),
                None,
                "task.iso",
                foreign("a medium whose image is no URL"),
            ),
            ("the token is cut out", Some(here("***")), None, "task.iso", Ours),
            (
                "likewise, and nothing was put there",
                Some(here("***")),
                None,
                "",
                foreign("https://192.0.2.1:8443/m/***/task.iso"),
            ),
            (
                "an address that begins alike",
                Some(url("https://192.0.2.12:8443", "***")),
                None,
                "task.iso",
                foreign("https://192.0.2.12:8443/m/***/task.iso"),
            ),
            (
                "a URL that is none",
                Some(url("https://192.0.2.1:84433", "***")),
                None,
                "task.iso",
                foreign("a medium whose image is no URL"),
            ),
            (
                "a login and a query",
                Some("http://me:pw@198.51.100.9/live/rescue.iso?key=abc#x".into()),
                None,
                "",
                foreign("http://198.51.100.9/live/rescue.iso"),
            ),
        ] {
            let filled: Vec<(String, String)> = [("/s/1".to_owned(), filled.to_owned())]
                .into_iter()
                .filter(|(_, name)| !name.is_empty())
                .collect();
            let known = Known { job: Some("j1"), filled: &filled, bases: [&base, &base] };
            let slot = slot(image.as_deref(), None, false);
            assert_eq!(of_slot(&known, &slot, issued.as_ref()), expected, "{what}");
        }
    }

    #[test]
    fn a_person_s_console_and_a_named_medium_are_not_ours_even_where_one_of_ours_was_put() {
        let base = Url::parse("https://192.0.2.1:8443").unwrap();
        let filled = [("/s/1".to_owned(), "task.iso".to_owned())];
        let known = Known { job: None, filled: &filled, bases: [&base, &base] };
        let console = slot(None, None, true);
        let named = slot(None, Some("rescue.iso"), false);
        for (slot, what) in
            [(console, "a medium of a remote console"), (named, "a medium named \"rescue.iso\"")]
        {
            assert_eq!(of_slot(&known, &slot, None), Occupant::Foreign(what.to_owned()));
        }
        let mut empty = slot(None, None, false);
        empty.inserted = false;
        assert_eq!(of_slot(&known, &empty, None), Occupant::Nothing);
    }

    #[test]
    fn a_token_is_found_in_whatever_part_of_a_url_a_bmc_shows() {
        for (image, token) in [
            (format!("https://192.0.2.1:8443/m/{TOKEN}/task.iso"), Some(TOKEN)),
            (format!("/m/{TOKEN}/task.iso"), Some(TOKEN)),
            (format!("m\\{TOKEN}\\task.iso"), Some(TOKEN)),
            (format!("https://192.0.2.1:8443/m/{TOKEN}0/task.iso"), None),
            ("https://192.0.2.1/m/abc/task.iso".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(token_of(&image), token, "{image}");
        }
    }
}
