// SPDX-License-Identifier: AGPL-3.0-or-later
//! YAML checks by the rules of cloud-init: does the text parse, and does it have the required type at its top?
//!
//! cloud-init loads with PyYAML's `safe_load` (`load_yaml` of its `util.py`). If that fails, it ignores the whole text,
//! with a line in its log. What PyYAML accepts is accepted here: duplicate keys (the last one wins), anchors, aliases,
//! merge keys, an empty document. What PyYAML rejects is rejected here: text that does not parse, tabs as indentation,
//! control characters, a second document, tags of other programs, keys that are lists or mappings (`{{ name }}`
//! without quotes). PyYAML reads YAML 1.1 and this parser reads 1.2; both agree on what a mapping is.
//!
//! Errors contain the place and never a value, which may be secret. The CLI's reader of YAML recipes has its own rules,
//! and uses these errors.

use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScanError, Tag};

/// PyYAML recurses for each level, and Python stops at 1000 calls.
const DEPTH_MAX: usize = 200;
/// Longest text that is taken from the parser's message.
const WORDS_MAX: usize = 200;

/// Why a text is rejected, with its line and column, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub line: usize,
    pub column: usize,
    pub why: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.why)
    }
}

impl Error {
    pub fn at(at: &Marker, why: impl Into<String>) -> Error {
        Error { line: at.line(), column: at.col() + 1, why: why.into() }
    }

    /// The parser's message, with advice about tabs in `text`.
    pub fn of_scan(text: &str, scan: &ScanError) -> Error {
        let at = scan.marker();
        let mut why: String = scan.info().chars().take(WORDS_MAX).collect();
        // The parser may report the end of the white space, or the following line.
        let is_tabbed = |number: usize| {
            let line = number.checked_sub(1).and_then(|index| text.lines().nth(index));
            line.is_some_and(|line| {
                line.chars().take_while(|letter| letter.is_whitespace()).any(|l| l == '\t')
            })
        };
        if is_tabbed(at.line()) || is_tabbed(at.line().saturating_sub(1)) {
            why.push_str("; a tab indents a line here: YAML takes spaces only");
        }
        Error::at(at, why)
    }
}

/// The type that a document must have at its top. An empty document is accepted as either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Top {
    Mapping,
    List,
}

/// Fails if cloud-init would ignore `text`.
pub fn check(text: &str, top: Top) -> Result<(), Error> {
    check_characters(text)?;
    let mut documents = 0;
    // For each open list and mapping: the role of the next node in it.
    let mut open: Vec<Next> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|scan| Error::of_scan(text, &scan))?;
        let at = &span.start;
        let is_top = open.is_empty();
        let next = open.last().copied();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Error::at(at, "a second document begins; one is read"));
                }
            }
            Event::Scalar(value, _, _, tag) => {
                check_tag(tag.as_deref(), at)?;
                if is_top && !matches!(&*value, "" | "~" | "null" | "Null" | "NULL") {
                    return Err(Error::at(at, wrong_top(top)));
                }
                advance(&mut open);
            }
            Event::Alias(_) => advance(&mut open),
            Event::SequenceStart(_, tag) | Event::MappingStart(_, tag)
                if next == Some(Next::Key) =>
            {
                check_tag(tag.as_deref(), at)?;
                return Err(Error::at(
                    at,
                    "a list or a mapping stands where a name belongs; put {{ ... }} into quotes",
                ));
            }
            Event::SequenceStart(_, tag) => {
                check_tag(tag.as_deref(), at)?;
                if is_top && top != Top::List {
                    return Err(Error::at(at, wrong_top(top)));
                }
                advance(&mut open);
                enter(&mut open, Next::Item, at)?;
            }
            Event::MappingStart(_, tag) => {
                check_tag(tag.as_deref(), at)?;
                if is_top && top != Top::Mapping {
                    return Err(Error::at(at, wrong_top(top)));
                }
                advance(&mut open);
                enter(&mut open, Next::Key, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Item,
    Key,
    Value,
}

/// Records that a node is complete: after a key comes its value.
fn advance(open: &mut [Next]) {
    if let Some(next) = open.last_mut() {
        *next = match next {
            Next::Item => Next::Item,
            Next::Key => Next::Value,
            Next::Value => Next::Key,
        };
    }
}

fn enter(open: &mut Vec<Next>, next: Next, at: &Marker) -> Result<(), Error> {
    if open.len() == DEPTH_MAX {
        return Err(Error::at(at, format!("nested deeper than {DEPTH_MAX} levels")));
    }
    open.push(next);
    Ok(())
}

fn wrong_top(top: Top) -> &'static str {
    match top {
        Top::Mapping => "this is no mapping; write lines such as hostname: web-1",
        Top::List => "this is no list; write an entry such as - content: ...",
    }
}

/// Tags of PyYAML's safe loader.
const TAGS: [&str; 13] = [
    "binary",
    "bool",
    "float",
    "int",
    "map",
    "merge",
    "null",
    "omap",
    "pairs",
    "seq",
    "set",
    "str",
    "timestamp",
];

fn check_tag(tag: Option<&Tag>, at: &Marker) -> Result<(), Error> {
    let Some(tag) = tag else { return Ok(()) };
    let is_known = (tag.is_yaml_core_schema() && TAGS.contains(&tag.suffix.as_str()))
        || (tag.handle.is_empty() && tag.suffix == "!");
    match is_known {
        true => Ok(()),
        false => Err(Error::at(at, "a tag that cloud-init does not know; leave it out")),
    }
}

/// Rejects characters that PyYAML's reader rejects (`NON_PRINTABLE` of its source).
fn check_characters(text: &str) -> Result<(), Error> {
    let is_taken = |letter: char| {
        matches!(letter, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}')
            || matches!(letter, '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
    };
    for (line, text) in (1..).zip(text.split('\n')) {
        if let Some(column) = text.chars().position(|letter| !is_taken(letter)) {
            let why = "a control character stands here; write it as an escape in double quotes";
            return Err(Error { line, column: column + 1, why: why.into() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cloud_init_takes_is_taken() {
        for text in [
            "#cloud-config\nhostname: a\n",
            "#cloud-config\r\nhostname: a\r\nusers:\r\n- name: b\r\n",
            "#cloud-config",
            "#cloud-config\n# nothing but words\n",
            "#cloud-config\n---\n",
            "#cloud-config\n---\nhostname: a\n...\n",
            "#cloud-config\nnull\n",
            "#cloud-config\n{}\n",
            "#cloud-config\n{\"hostname\": \"a\", \"users\": []}\n",
            // The last one counts.
            "#cloud-config\nhostname: a\nhostname: b\n",
            "#cloud-config\na: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  b: 2\n",
            "#cloud-config\nd:\n  <<: [{a: 1}, {b: 2}]\n",
            "#cloud-config\nruncmd:\n- [ls, -l]\n- 'echo \"$(date)\"'\n- |\n  if a; then\n  \tb\n  fi\n",
            "#cloud-config\nwrite_files:\n- content: !!binary |\n    aGk=\n  path: /a\n  permissions: 0644\n",
            "#cloud-config\nwrite_files:\n- {path: /a, content: \"{{ name }}\"}\n- content: |\n    {{ name }}\n",
            "#cloud-config\n? hostname\n: a\n",
            "#cloud-config\non: no\n12: 0x10\n2026-11-30: ~\n",
            "#cloud-config\nssh_authorized_keys:\n  - ssh-ed25519 AAAA a@b # mine\n",
            "#cloud-config\na: >-\n  folded\n  text\n\nb: !!str 1\n",
            "#cloud-config\na: grüße 🚢\n",
            "#cloud-config\na:\n- b\n-\n  - c\n",
            "#cloud-config\npower_state: {mode: reboot, timeout: 30, condition: True}\n",
        ] {
            assert_eq!(check(text, Top::Mapping), Ok(()), "{text:?}");
        }
        assert_eq!(check("#cloud-config-archive\n- content: a\n- b\n", Top::List), Ok(()));
    }

    #[test]
    fn what_cloud_init_ignores_is_refused_with_its_place() {
        for (text, expected) in [
            ("#cloud-config\nusers:\n  - name: a\n    groups: [b\n", "line 5, column 1: "),
            ("#cloud-config\nhostname: a: b\n", "line 2, column 12: "),
            ("#cloud-config\nhostname: \"a\n", "line "),
            ("#cloud-config\nusers:\n  - a\n - b\n", "line 4, column "),
            ("#cloud-config\na: 1\n b: 2\n", "line 3, column "),
            ("#cloud-config\na: @b\n", "line 2, column 4: "),
            ("#cloud-config\na: *nobody\n", "line 2, column 4: "),
            ("#cloud-config\n- hostname: a\n", "line 2, column 1: this is no mapping"),
            ("#cloud-config\nhostname\n", "line 2, column 1: this is no mapping"),
            ("#cloud-config\nhostname=a\n", "line 2, column 1: this is no mapping"),
            ("#cloud-config\n[]\n", "line 2, column 1: this is no mapping"),
            ("#cloud-config\na: 1\n---\nb: 2\n", "line 3, column 1: a second document begins"),
            ("#cloud-config\na: {{ name }}\n", "line 2, column 5: a list or a mapping stands"),
            ("#cloud-config\n? [a]\n: b\n", "line 2, column 3: a list or a mapping stands"),
            ("#cloud-config\na: !vault b\n", "line 2, column 4: a tag that cloud-init does not"),
            ("#cloud-config\na: !!python/none b\n", "line 2, column 4: a tag that cloud-init does"),
            ("#cloud-config\na: b\u{1b}c\n", "line 2, column 5: a control character stands here"),
            ("#cloud-config\na: \u{0}\n", "line 2, column 4: a control character stands here"),
        ] {
            let told = check(text, Top::Mapping).expect_err(text).to_string();
            assert!(told.starts_with(expected), "{text:?}: {told}");
        }
        let told = check("#cloud-config\nusers:\n\t- a\n", Top::Mapping).unwrap_err();
        assert!(told.why.ends_with("a tab indents a line here: YAML takes spaces only"), "{told}");
        let told = check("a: b\n", Top::List).unwrap_err().to_string();
        assert!(told.starts_with("line 1, column 1: this is no list"), "{told}");
        let deep = format!("a: {}{}", "[".repeat(220), "]".repeat(220));
        assert!(check(&deep, Top::Mapping).unwrap_err().why.contains("nested deeper"));
    }
}
