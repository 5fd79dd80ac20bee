// SPDX-License-Identifier: AGPL-3.0-or-later
//! YAML to JSON, guided by the recipe's schema.
//!
//! YAML guesses the type of an unquoted word: `8300`, `0700`, `8e00`, `no` and `12:34` are numbers or booleans to one
//! parser or another. Here the field decides. Where the schema has text, the word is taken as written. Where the
//! schema has a number or a boolean, or no type (`metadata`), the word can be one, by YAML 1.2's core schema in JSON's
//! notation.
//!
//! Refused, each with an error of its own: duplicate keys, merge keys, tags of other types, several documents.
//! Aliases are expanded within a limit.

use std::collections::HashMap;

use recipe::yaml::Error;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

/// Limit of nodes. A recipe with the most partitions, interfaces and variables has about a thousand; aliases count as
/// often as they are used.
const NODES_MAX: usize = 20_000;
/// The greatest depth of a recipe (`recipe::validate`).
const DEPTH_MAX: usize = 64;

fn error(at: &Marker, why: impl Into<String>) -> Error {
    Error::at(at, why)
}

/// Parses the single document of a text as the JSON of a recipe.
pub fn parse(text: &str) -> Result<Value, Error> {
    let schema: Value = serde_json::from_str(recipe::SCHEMA).expect("the embedded schema is JSON");
    let guide = Guide { schema: &schema };
    let mut reader =
        Reader { text, events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let node = reader.document()?;
    Ok(guide.value(&node, Some(&schema)))
}

/// A node as written.
#[derive(Debug, Clone)]
enum Node {
    Scalar { text: String, is_plain: bool },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn count(&self) -> usize {
        1 + match self {
            Node::Scalar { .. } => 0,
            Node::List(items) => items.iter().map(Node::count).sum(),
            Node::Map(fields) => fields.iter().map(|(_, node)| node.count()).sum(),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// The nodes that aliases stand for, by the parser's number of the anchor.
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Error> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(scan)) => Err(Error::of_scan(self.text, &scan)),
            None => Err(Error { line: 1, column: 1, why: "the text ends too early".into() }),
        }
    }

    fn document(&mut self) -> Result<Node, Error> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if document.is_some() => {
                    return Err(error(
                        &span.start,
                        "a second document begins; write one recipe in one file",
                    ));
                }
                Event::DocumentStart(_) => {
                    let (first, span) = self.next()?;
                    document = Some(self.node(first, &span, 0)?);
                }
                Event::StreamEnd => {
                    return document.ok_or_else(|| error(&span.start, "there is nothing in it"));
                }
                _ => return Err(error(&span.start, "this is outside of the document")),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Error> {
        let at = &span.start;
        self.count(1, at)?;
        if depth > DEPTH_MAX {
            return Err(error(at, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain && tag.is_none();
                check_tag(tag.as_deref(), "str", at)?;
                (anchor, Node::Scalar { text: text.into_owned(), is_plain })
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), "seq", at)?;
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::SequenceEnd {
                        break (anchor, Node::List(items));
                    }
                    items.push(self.node(event, &span, depth + 1)?);
                }
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), "map", at)?;
                (anchor, Node::Map(self.fields(depth)?))
            }
            Event::Alias(anchor) => {
                let node =
                    self.anchors.get(&anchor).cloned().ok_or_else(|| {
                        error(at, "an alias within what it stands for; write it out")
                    })?;
                self.count(node.count(), at)?;
                return Ok(node);
            }
            _ => return Err(error(at, "a value is missing")),
        };
        // The parser numbers anchors from 1.
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn fields(&mut self, depth: usize) -> Result<Vec<(String, Node)>, Error> {
        let mut fields = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let at = span.start;
            let (key, is_plain) = match event {
                Event::MappingEnd => return Ok(fields),
                Event::Scalar(text, style, 0, None) => {
                    (text.into_owned(), style == ScalarStyle::Plain)
                }
                _ => {
                    return Err(error(
                        &at,
                        "a name of a field is text, without an anchor or a tag",
                    ));
                }
            };
            if key == "<<" && is_plain {
                return Err(error(&at, "merge keys (<<) are not taken; write the fields out"));
            }
            let shown: String = key.chars().take(60).collect();
            if let Some(line) = places.insert(key.clone(), at.line()) {
                let why = format!("{shown:?} is written twice, first in line {line}");
                return Err(error(&at, why));
            }
            let (event, span) = self.next()?;
            fields.push((key, self.node(event, &span, depth + 1)?));
        }
    }

    fn count(&mut self, nodes: usize, at: &Marker) -> Result<(), Error> {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let why = format!("more than {NODES_MAX} values, with those that aliases repeat");
            return Err(error(at, why));
        }
        Ok(())
    }
}

/// The schema decides the types: a tag may only confirm that a node is a text, a list or a map.
fn check_tag(tag: Option<&Tag>, taken: &str, at: &Marker) -> Result<(), Error> {
    let Some(tag) = tag else { return Ok(()) };
    let is_taken = (tag.is_yaml_core_schema() && tag.suffix == taken)
        || (tag.handle.is_empty() && tag.suffix == "!");
    if is_taken {
        return Ok(());
    }
    let shown: String = format!("{}{}", tag.handle, tag.suffix).chars().take(60).collect();
    Err(error(at, format!("the tag {shown} is not taken; leave it out")))
}

/// The schema of a place.
struct Guide<'a> {
    schema: &'a Value,
}

impl<'a> Guide<'a> {
    fn value(&self, node: &Node, place: Option<&'a Value>) -> Value {
        match node {
            Node::Scalar { text, is_plain: false } => Value::String(text.clone()),
            Node::Scalar { text, is_plain: true } => plain(text, place),
            Node::List(items) => {
                let place = self.resolved(place.and_then(|place| place.get("items")));
                items.iter().map(|item| self.value(item, place)).collect()
            }
            Node::Map(fields) => {
                let field = |(name, node): &(String, Node)| {
                    (name.clone(), self.value(node, self.field(place, name)))
                };
                Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
            }
        }
    }

    fn field(&self, place: Option<&'a Value>, name: &str) -> Option<&'a Value> {
        let place = place?;
        let named = place.get("properties").and_then(|fields| fields.get(name));
        // `false` is not a schema; `recipe` reports unknown fields.
        let other = || place.get("additionalProperties").filter(|schema| schema.is_object());
        self.resolved(named.or_else(other))
    }

    fn resolved(&self, place: Option<&'a Value>) -> Option<&'a Value> {
        let place = place?;
        match place.get("$ref").and_then(Value::as_str) {
            None => Some(place),
            Some(reference) => self.schema.pointer(reference.strip_prefix('#')?),
        }
    }
}

/// Converts an unquoted word to the type of its field.
fn plain(word: &str, place: Option<&Value>) -> Value {
    if matches!(word, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    if place.is_some_and(is_text) {
        return Value::String(word.to_owned());
    }
    match word {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        // JSON's numbers: no octal, no sexagesimal, no leading zero, no infinity.
        word => match serde_json::from_str(word) {
            Ok(Value::Number(number)) => Value::Number(number),
            Ok(_) | Err(_) => Value::String(word.to_owned()),
        },
    }
}

/// Returns whether a place accepts text, but neither a number nor a boolean.
fn is_text(place: &Value) -> bool {
    let has = |wanted: &str| match place.get("type") {
        Some(Value::String(kind)) => kind == wanted,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == wanted),
        _ => false,
    };
    let words = place.get("enum").and_then(Value::as_array);
    let is_word = words.is_some_and(|words| words.iter().all(Value::is_string));
    is_word || (has("string") && !["integer", "number", "boolean"].into_iter().any(has))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unquoted_word_is_what_its_field_is() {
        for (yaml, expected) in [
            (
                "partition_layout: [{type_guid: 8300}]",
                json!({"partition_layout": [{"type_guid": "8300"}]}),
            ),
            (
                "partition_layout: [{type_guid: 0700}]",
                json!({"partition_layout": [{"type_guid": "0700"}]}),
            ),
            (
                "partition_layout:\n- type_guid: 8e00\n  size: 100%\n  label: no\n",
                json!({"partition_layout": [{"type_guid": "8e00", "size": "100%", "label": "no"}]}),
            ),
            (
                "target_disk: {serial: 0012345, model: 1e3, hctl: 0:0:1:0, rotational: false}",
                json!({"target_disk": {"serial": "0012345", "model": "1e3", "hctl": "0:0:1:0", "rotational": false}}),
            ),
            ("target_disk: sda\nwipe: any", json!({"target_disk": "sda", "wipe": "any"})),
            ("wipe: {expect: [on, gpt]}", json!({"wipe": {"expect": ["on", "gpt"]}})),
            (
                "network: {interfaces: [{macs: [52:54:00:12:34:56], vlan: 12, dhcp: true, bond: 802.3ad}]}",
                json!({"network": {"interfaces": [{"macs": ["52:54:00:12:34:56"], "vlan": 12, "dhcp": true, "bond": "802.3ad"}]}}),
            ),
            // Kept as text, so that the schema refuses them: they are not guessed to be false, 8 or 10.
            (
                "network: {interfaces: [{dhcp: no, vlan: 0o10}]}",
                json!({"network": {"interfaces": [{"dhcp": "no", "vlan": "0o10"}]}}),
            ),
            ("wim_index: 010", json!({"wim_index": "010"})),
            ("wim_index: \"1\"", json!({"wim_index": "1"})),
            (
                "env: {A: 1, B: yes, C: 0x10, D: 2026-11-30}",
                json!({"env": {"A": "1", "B": "yes", "C": "0x10", "D": "2026-11-30"}}),
            ),
            (
                "metadata: {a: 1, b: yes, c: 1.5, d: 012, e: ~, f: '1', g: True}",
                json!({"metadata": {"a": 1, "b": "yes", "c": 1.5, "d": "012", "e": null, "f": "1", "g": true}}),
            ),
            (
                "user_data: |\n  #cloud-config\n  hostname: web-1\n",
                json!({"user_data": "#cloud-config\nhostname: web-1\n"}),
            ),
            ("user_data: !!str 12", json!({"user_data": "12"})),
            (
                "wipe: &w {expect: [gpt]}\nmetadata: {w: *w}",
                json!({"wipe": {"expect": ["gpt"]}, "metadata": {"w": {"expect": ["gpt"]}}}),
            ),
        ] {
            assert_eq!(parse(yaml), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn what_readers_of_yaml_differ_in_is_refused_with_its_place() {
        for (yaml, expected) in [
            (
                "wipe: any\nwipe: any\n",
                "line 2, column 1: \"wipe\" is written twice, first in line 1",
            ),
            ("a: {b: 1, \"b\": 2}", "line 1, column 11: \"b\" is written twice, first in line 1"),
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n",
                "line 3, column 3: merge keys (<<) are not taken; write the fields out",
            ),
            ("user_data: !!binary aGk=\n", "line 1, column 12: the tag "),
            ("wim_index: !!int 1\n", "line 1, column 12: the tag "),
            (
                "a: 1\n---\nb: 1\n",
                "line 2, column 1: a second document begins; write one recipe in one file",
            ),
            ("", "line 1, column 1: there is nothing in it"),
            ("# only words\n", "line 2, column 1: there is nothing in it"),
            ("a: &x [*x]\n", "line 1, column 8: an alias within what it stands for; write it out"),
            ("a: *nobody\n", "line 1, column 4: "),
            (
                "? [a]\n: 1\n",
                "line 1, column 3: a name of a field is text, without an anchor or a tag",
            ),
            ("a: [1\n", "line 2, column 1: "),
            ("a: b: c\n", "line 1, column "),
        ] {
            let told = parse(yaml).expect_err(yaml).to_string();
            assert!(told.starts_with(expected), "{yaml:?}: {told}");
        }
        let told = parse("a:\n\tb: 1\n").unwrap_err().to_string();
        assert!(told.contains("a tab indents a line here: YAML takes spaces only"), "{told}");
    }

    #[test]
    fn aliases_and_nesting_have_a_limit() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{list}]\n");
        }
        let told = parse(&laughs).unwrap_err();
        assert!(told.why.starts_with("more than 20000 values"), "{told}");
        let deep = format!("a: {}{}", "[".repeat(80), "]".repeat(80));
        let told = parse(&deep).unwrap_err();
        assert!(told.why.starts_with("nested deeper than 64 levels"), "{told}");
    }
}
