// SPDX-License-Identifier: AGPL-3.0-or-later
//! A recorded tree: a directory as DMTF's Redfish-Mockup-Creator writes it, or one JSON file. Errors name the
//! file that is not valid. Nothing is simulated here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// The root of every tree.
pub const ROOT: &str = "/redfish/v1";
/// The files of a resource in a directory: its body, and its response headers.
const BODY_FILE: &str = "index.json";
const HEADERS_FILE: &str = "headers.json";
/// Members of an object that describes a whole response, not only a resource.
const STATUS: &str = "@shoal.status";
const BODY: &str = "@shoal.body";
const HEADERS: &str = "@shoal.headers";
/// A large server has a few thousand resources, most of a few KiB.
const RESOURCES_MAX: usize = 100_000;
const BYTES_MAX: u64 = 512 << 20;
/// A path of Redfish has about ten segments.
const DEPTH_MAX: usize = 40;

/// The responses to GET, by path without the last slash.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    resources: BTreeMap<String, Recorded>,
}

/// A recorded response.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub status: u16,
    pub content: Content,
    pub headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Json(Value),
    /// An HTML page, for instance.
    Text(String),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not JSON", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: {why}", .path.display())]
    Shape { path: PathBuf, why: String },
}

impl Tree {
    pub fn load(path: &Path) -> Result<Tree, Error> {
        let kind =
            fs::metadata(path).map_err(|source| Error::Read { path: path.into(), source })?;
        if kind.is_dir() { Tree::of_directory(path) } else { Tree::of_file(path) }
    }

    /// The whole recorded response. `path` includes the query, if there is one.
    pub fn recorded(&self, path: &str) -> Option<&Recorded> {
        self.resources.get(&key(path))
    }

    /// The document of a resource that could be read.
    pub fn body(&self, path: &str) -> Option<&Value> {
        match self.recorded(path) {
            Some(Recorded { status: 200, content: Content::Json(body), .. }) => Some(body),
            _ => None,
        }
    }

    pub fn body_mut(&mut self, path: &str) -> Option<&mut Value> {
        match self.resources.get_mut(&key(path)) {
            Some(Recorded { status: 200, content: Content::Json(body), .. }) => Some(body),
            _ => None,
        }
    }

    /// Every document, with its path.
    pub fn bodies(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.resources.iter().filter_map(|(path, recorded)| match &recorded.content {
            Content::Json(body) if recorded.status == 200 => Some((path.as_str(), body)),
            _ => None,
        })
    }

    pub fn count(&self) -> usize {
        self.resources.len()
    }

    /// The readable members of the collection that `value` links to.
    pub fn members(&self, value: &Value) -> Vec<String> {
        let Some(collection) = link(value) else { return Vec::new() };
        let members = self.body(&collection).and_then(|body| body["Members"].as_array());
        members.into_iter().flatten().filter_map(link).filter(|m| self.body(m).is_some()).collect()
    }

    fn of_file(path: &Path) -> Result<Tree, Error> {
        let shape = |why: String| Error::Shape { path: path.into(), why };
        let Value::Object(members) = read_json(path)? else {
            return Err(shape("an object {path: resource} is expected".into()));
        };
        // Other members describe the file, not a resource.
        let members: Vec<_> =
            members.into_iter().filter(|(name, _)| !name.starts_with('@')).collect();
        let has = |wanted: &str| members.iter().any(|(name, _)| key(name) == wanted);
        let base = match (has(ROOT), has("")) {
            (true, _) => "",
            (false, true) => ROOT,
            (false, false) => {
                return Err(shape("there is no service root: no member \"/redfish/v1\"".into()));
            }
        };
        let mut tree = Tree::default();
        for (name, value) in members {
            let recorded = Recorded::of(value).map_err(|why| shape(format!("{name:?}: {why}")))?;
            tree.resources.insert(format!("{base}{}", key(&name)), recorded);
        }
        Ok(tree)
    }

    fn of_directory(path: &Path) -> Result<Tree, Error> {
        let mut found = Found::default();
        found.walk(path, &mut Vec::new())?;
        let base = found.root().ok_or_else(|| Error::Shape {
            path: path.into(),
            why: format!(
                "there is no service root: no redfish/v1/{BODY_FILE}, and no {BODY_FILE} whose \
                 @odata.id is {ROOT}"
            ),
        })?;
        let mut tree = Tree::default();
        for (place, body) in found.bodies {
            let Some(below) = place.strip_prefix(base.as_slice()) else { continue };
            let uri = below.iter().fold(ROOT.to_owned(), |uri, name| format!("{uri}/{name}"));
            let (file, value) = body;
            let shape = |why| Error::Shape { path: file.clone(), why };
            let mut recorded = Recorded::of(value).map_err(shape)?;
            if let Some((file, headers)) = found.headers.remove(&place) {
                let shape = |why| Error::Shape { path: file.clone(), why };
                recorded.headers.extend(headers_of(headers).map_err(shape)?);
            }
            tree.resources.insert(uri, recorded);
        }
        Ok(tree)
    }
}

/// The files of a directory, by their place below it.
#[derive(Default)]
struct Found {
    bodies: BTreeMap<Vec<String>, (PathBuf, Value)>,
    headers: BTreeMap<Vec<String>, (PathBuf, Value)>,
    bytes: u64,
}

impl Found {
    fn walk(&mut self, dir: &Path, place: &mut Vec<String>) -> Result<(), Error> {
        let failed = |source| Error::Read { path: dir.into(), source };
        let shape = |why: String| Error::Shape { path: dir.into(), why };
        if place.len() > DEPTH_MAX {
            return Err(shape(format!("directories nest deeper than {DEPTH_MAX}")));
        }
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Symbolic links are not followed: they may form cycles.
            let kind = entry.file_type().map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(shape(format!("{} is not UTF-8", entry.path().display())));
            };
            let path = entry.path();
            if kind.is_dir() {
                place.push(name);
                self.walk(&path, place)?;
                place.pop();
            } else if kind.is_file() && (name == BODY_FILE || name == HEADERS_FILE) {
                self.bytes += entry.metadata().map_err(failed)?.len();
                if self.bytes > BYTES_MAX || self.bodies.len() >= RESOURCES_MAX {
                    return Err(shape(format!(
                        "the tree has more than {RESOURCES_MAX} resources or {BYTES_MAX} bytes"
                    )));
                }
                let value = read_json(&path)?;
                let files = if name == BODY_FILE { &mut self.bodies } else { &mut self.headers };
                files.insert(place.clone(), (path, value));
            }
        }
        Ok(())
    }

    /// The place of the service root. It is a directory with the whole path as its name, or the directory itself (the
    /// mockup creator's short form), or a directory below another one.
    fn root(&self) -> Option<Vec<String>> {
        let by_depth = |places: &mut Vec<&Vec<String>>| places.sort_by_key(|place| place.len());
        let mut places: Vec<_> = self.bodies.keys().collect();
        by_depth(&mut places);
        let is_named = |place: &&Vec<String>| matches!(place.as_slice(), [.., redfish, v1] if redfish == "redfish" && v1 == "v1");
        let is_root = |place: &&Vec<String>| {
            let body = &self.bodies[*place].1;
            let kind = body["@odata.type"].as_str().unwrap_or_default();
            link(body).is_some_and(|path| key(&path) == ROOT) || kind.starts_with("#ServiceRoot.")
        };
        let named = places.iter().find(|place| is_named(place));
        named.or_else(|| places.iter().find(|place| is_root(place))).map(|place| (*place).clone())
    }
}

impl Recorded {
    fn of(value: Value) -> Result<Recorded, String> {
        let is_response = [STATUS, BODY, HEADERS].iter().any(|name| value.get(name).is_some());
        if !is_response {
            return Ok(Recorded {
                status: 200,
                content: Content::Json(value),
                headers: Vec::new(),
            });
        }
        let status = match &value[STATUS] {
            Value::Null => 200,
            status => {
                let status = status.as_u64().and_then(|status| u16::try_from(status).ok());
                status
                    .filter(|status| (200..=599).contains(status))
                    .ok_or_else(|| format!("{STATUS} is not an HTTP status from 200 to 599"))?
            }
        };
        let content = match value.get(BODY).cloned() {
            None | Some(Value::Null) => Content::Text(String::new()),
            Some(Value::String(text)) => Content::Text(text),
            Some(body) => Content::Json(body),
        };
        let headers = headers_of(value.get(HEADERS).cloned().unwrap_or_default())?;
        Ok(Recorded { status, content, headers })
    }
}

/// The headers of an object, by name. The mockup creator puts them below the method.
fn headers_of(value: Value) -> Result<Vec<(String, String)>, String> {
    let mut headers = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(headers) => headers,
        _ => return Err("headers are not an object {name: value}".into()),
    };
    if let Some(Value::Object(of_get)) = headers.remove("GET") {
        headers = of_get;
    }
    let text = |(name, value): (String, Value)| match value {
        Value::String(value) => Ok((name, value)),
        Value::Number(number) => Ok((name, number.to_string())),
        _ => Err(format!("the header {name:?} is not a text")),
    };
    let is_of_method = |name: &str| matches!(name, "POST" | "PATCH" | "PUT" | "DELETE" | "HEAD");
    headers.retain(|name, _| !is_of_method(name));
    Map::into_iter(headers).map(text).collect()
}

/// Reads a body as it was sent. It may begin with a byte order mark, end in NUL, and contain bytes that are not UTF-8.
fn read_json(path: &Path) -> Result<Value, Error> {
    let size = fs::metadata(path).map(|data| data.len());
    let bytes = size.and_then(|_| fs::read(path));
    let bytes = bytes.map_err(|source| Error::Read { path: path.into(), source })?;
    if bytes.len() as u64 > BYTES_MAX {
        let why = format!("it has more than {BYTES_MAX} bytes");
        return Err(Error::Shape { path: path.into(), why });
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}').trim_end_matches('\0');
    serde_json::from_str(text).map_err(|source| Error::Json { path: path.into(), source })
}

/// Normalises a path as in the tree: without host, fragment and last slash.
pub fn key(path: &str) -> String {
    let path = path
        .split_once("://")
        .map_or(path, |(_, rest)| rest.find('/').map_or("", |start| &rest[start..]));
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = path.split_once('?').map_or((path, ""), |(path, query)| (path, query));
    let path = path.trim_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{slash}{path}{mark}{query}")
}

pub fn link(value: &Value) -> Option<String> {
    value["@odata.id"].as_str().filter(|path| !path.is_empty()).map(str::to_owned)
}
