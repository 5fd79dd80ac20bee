// SPDX-License-Identifier: AGPL-3.0-or-later
//! Parses the requests to a BMC, and rejects what its profile alone forbids, whatever its state. Pure: the fleet's
//! scripted machines and the QEMU machine both use it.

use serde_json::Value;

use super::profile::quirk::Quirk;
use super::profile::{Eject, Insert, Profile, Takes};
use super::reply::{Reply, Request};

/// A change of the boot override. Absent properties stay unchanged.
pub struct BootAsked<'a> {
    pub enabled: Option<&'a str>,
    pub target: Option<&'a str>,
    pub mode: Option<&'a str>,
    /// An empty URL removes the present one.
    pub http_uri: Option<&'a str>,
}

/// Returns the URL with which `InsertMedia` is called for this slot.
pub fn image(profile: &Profile, slot: usize, body: &Value) -> Result<String, Reply> {
    let Some(url) = body["Image"].as_str().map(str::to_owned) else {
        return Err(Reply::refused(400, "PropertyMissing", "Image is needed"));
    };
    if let Insert::Action { refuses, demands } = profile.insert {
        if let Some(name) = refuses.iter().find(|name| !body[**name].is_null()) {
            return Err(Reply::refused(400, "PropertyUnknown", name));
        }
        if let Some(name) = demands.iter().find(|name| body[**name].is_null()) {
            return Err(Reply::refused(400, "PropertyMissing", name));
        }
    }
    if profile.slots[slot].takes != Takes::Urls {
        return Err(Reply::refused(400, "ActionNotSupported", "this slot is for local media"));
    }
    Ok(url)
}

/// Checks the body of `EjectMedia` against the form that the profile requires.
pub fn eject(profile: &Profile, body: &Value) -> Result<(), Reply> {
    let is_fine = match profile.eject {
        Eject::NoBody => body.is_null(),
        Eject::EmptyObject => body.is_object(),
        Eject::Any => true,
    };
    match is_fine {
        true => Ok(()),
        false => Err(Reply::refused(400, "MalformedJSON", "this is not the body that is wanted")),
    }
}

/// Parses a PATCH of a slot without actions: an image inserts, null ejects.
pub fn slot<'a>(
    profile: &Profile,
    slot: usize,
    request: &'a Request,
    etag: &str,
) -> Result<Option<&'a str>, Reply> {
    if profile.insert != Insert::Patch {
        return Err(Reply::refused(405, "OperationNotAllowed", "use the slot's actions"));
    }
    matching(request, etag)?;
    let is_eject = request.body["Inserted"] == false;
    let url = request.body["Image"].as_str().filter(|url| !is_eject && !url.is_empty());
    match url {
        Some(url) if profile.slots[slot].takes != Takes::Urls => {
            // Like Lenovo's BMCs, it repeats the value.
            let why = format!("the value {url} of Image is of a different format");
            Err(Reply::refused(400, "PropertyValueFormatError", &why))
        }
        url => Ok(url),
    }
}

/// Parses a PATCH of the resource with the boot override.
pub fn boot<'a>(profile: &Profile, request: &'a Request) -> Result<BootAsked<'a>, Reply> {
    let asked = &request.body["Boot"];
    let text = |name: &str| asked[name].as_str();
    let asked = BootAsked {
        enabled: text("BootSourceOverrideEnabled"),
        target: text("BootSourceOverrideTarget"),
        mode: text("BootSourceOverrideMode"),
        http_uri: asked.get("HttpBootUri").map(|uri| uri.as_str().unwrap_or_default()),
    };
    if profile.boot.needs_all && (asked.enabled.is_none() || asked.target.is_none()) {
        return Err(Reply::refused(400, "PropertyMissing", "the whole boot object is needed"));
    }
    if asked.mode.is_some() && !profile.boot.is_mode_known {
        return Err(Reply::refused(400, "PropertyUnknown", "BootSourceOverrideMode"));
    }
    let is_offered = |target: &str| target == "None" || profile.boot.targets.contains(&target);
    if asked.target.is_some_and(|target| !is_offered(target)) {
        return Err(Reply::refused(400, "PropertyValueNotInList", "BootSourceOverrideTarget"));
    }
    if asked.http_uri.is_some() && !profile.has(Quirk::HttpBoot) {
        return Err(Reply::refused(400, "PropertyUnknown", "HttpBootUri"));
    }
    Ok(asked)
}

/// Returns the `ResetType` of a reset.
pub fn reset<'a>(profile: &Profile, body: &'a Value) -> Result<&'a str, Reply> {
    let kind = body["ResetType"].as_str().unwrap_or_default();
    match profile.resets.contains(&kind) {
        true => Ok(kind),
        false => Err(Reply::refused(400, "ActionParameterNotSupported", "ResetType")),
    }
}

/// Checks that the request's `If-Match` is the present ETag of the resource.
pub fn matching(request: &Request, etag: &str) -> Result<(), Reply> {
    match &request.if_match {
        None => Err(Reply::refused(428, "PreconditionRequired", "If-Match is needed")),
        Some(given) if given != etag && given != "*" => {
            Err(Reply::refused(412, "PreconditionFailed", "it was changed meanwhile"))
        }
        Some(_) => Ok(()),
    }
}
