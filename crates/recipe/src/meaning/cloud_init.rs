// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks of the payloads for input that cloud-init would ignore silently. cloud-init recognises `user_data` by its
//! first line only (cloud-init's documentation, "User-data formats"; `INCLUSION_TYPES_MAP` and `convert_string` of its
//! source). It skips YAML that does not parse, with only a line in its log (`yaml`). Two formats are not parsed here:
//! a template is YAML only after it is rendered, and a MIME message has several parts.

use crate::problem::{Problem, problem};
use crate::yaml::{self, Top};

/// First lines that cloud-init recognises, also with a suffix (`#include-once`). Older releases and other programs
/// that read a config drive accept them only in lower case and at the very beginning.
const FIRST_LINES: &[&str] =
    &["#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler"];
/// The first line of a template. Its second line gives the format of the rendered text.
const TEMPLATE: &str = "## template: jinja";
/// cloud-init recognises a MIME message by this word within the first `MIME_BYTES` bytes.
const MIME_WORD: &str = "mime-version:";
const MIME_BYTES: usize = 4096;
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The beginning of a gzip file in base64.
const GZIP_IN_BASE64: &str = "H4sI";

const KNOWN: &str = "the first line must be #cloud-config, #cloud-config-archive, #cloud-config-jsonp, #!, #include, \
    #include-once, #cloud-boothook, #part-handler, ## template: jinja, or a header of a MIME message that has \
    MIME-Version";

/// Appended to the description of a problem.
const UNREAD: &str = "cloud-init reads all of it or nothing";

/// The YAML type that the text must have at its top, if its first line declares YAML.
fn yaml_of(text: &str) -> Option<Top> {
    const ARCHIVE: &str = "#cloud-config-archive";
    const PATCH: &str = "#cloud-config-jsonp";
    const CONFIG: &str = "#cloud-config";
    if text.starts_with(PATCH) {
        return None;
    }
    match (text.starts_with(ARCHIVE), text.starts_with(CONFIG)) {
        (true, _) => Some(Top::List),
        (false, true) => Some(Top::Mapping),
        (false, false) => None,
    }
}

/// Reports what cloud-init would not read of `user_data`.
pub fn check_user_data(text: &str, problems: &mut Vec<Problem>) {
    if let Some(why) = ignored(text) {
        problems.push(problem("/user_data", "user-data", why));
    } else if let Some(top) = yaml_of(text)
        && let Err(error) = yaml::check(text, top)
    {
        problems.push(problem("/user_data", "yaml", format!("{error}; {UNREAD}")));
    }
}

/// Reports what cloud-init would not read of `meta_data` or `network_config`.
pub fn check_yaml(name: &str, text: &str, problems: &mut Vec<Problem>) {
    if let Some(why) = unreadable(text) {
        problems.push(problem(format!("/{name}"), "yaml", why));
    } else if let Err(error) = yaml::check(text, Top::Mapping) {
        problems.push(problem(format!("/{name}"), "yaml", format!("{error}; {UNREAD}")));
    }
}

/// Problems that make a payload of any kind unreadable.
fn unreadable(text: &str) -> Option<String> {
    if text.starts_with(BYTE_ORDER_MARK) {
        return Some(
            "begins with a byte order mark (U+FEFF), by which cloud-init does not know what it is; save it as UTF-8 \
             without one"
                .into(),
        );
    }
    text.trim().is_empty().then(|| "nothing is in here; fill it or leave it out".into())
}

fn ignored(text: &str) -> Option<String> {
    if text.trim().is_empty() {
        return Some(
            "nothing is in here; leave it out, or write #cloud-config where only meta_data or network_config are \
             needed"
                .into(),
        );
    }
    if let Some(why) = unreadable(text) {
        return Some(why);
    }
    if let Some(rest) = text.strip_prefix(TEMPLATE) {
        let (rest_of_line, body) = rest.split_once('\n').unwrap_or((rest, ""));
        if !rest_of_line.trim().is_empty() || !begins_as_known(body) {
            return Some(format!("the line after {TEMPLATE} says what is made of it: {KNOWN}"));
        }
        return None;
    }
    if begins_as_known(text) {
        return None;
    }
    if is_mime_header(text) {
        let mut end = text.len().min(MIME_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let has_version = text[..end].to_ascii_lowercase().contains(MIME_WORD);
        return (!has_version).then(|| {
            "a MIME message is known by MIME-Version: 1.0 among its headers, which is not there"
                .into()
        });
    }
    let why = if begins_as_known(text.trim_start()) {
        "white space comes before the first line"
    } else if text.starts_with(GZIP_IN_BASE64) {
        "base64 is not decoded; write the text itself"
    } else {
        "cloud-init would ignore it without a word"
    };
    Some(format!("{why}: {KNOWN}"))
}

fn begins_as_known(text: &str) -> bool {
    FIRST_LINES.iter().any(|line| text.starts_with(line))
}

/// Whether the text begins with a header (`Name: value`) or with the separator line of a mailbox.
fn is_mime_header(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    line.starts_with("From ")
        || line.split_once(':').is_some_and(|(name, value)| {
            let is_of_mime = name.to_ascii_lowercase();
            let is_of_mime = is_of_mime.starts_with("content-") || is_of_mime == "mime-version";
            is_of_mime && value.starts_with(' ')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_what_its_first_line_says() {
        let told = |text: &str| {
            let mut problems = Vec::new();
            check_user_data(text, &mut problems);
            problems.into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ")
        };
        for text in [
            "#cloud-config\nhostname: a\n",
            "#cloud-config-archive\n- content: a\n",
            "#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/a\", \"value\": 1}]\n",
            "## template: jinja\n#cloud-config\nhostname: {{ v1.instance_id }}\n{% if a %}\n  b: 1\n{% endif %}\n",
            "#!/bin/sh\na: b: c\n",
            "#cloud-boothook\n- a: b: c\n",
            "MIME-Version: 1.0\nContent-Type: text/cloud-config\n\n#cloud-config\n- no: mapping: here\n",
        ] {
            assert_eq!(told(text), "", "{text:?}");
        }
        for (text, words) in [
            ("#cloud-config\na: b: c\n", "user_data: line 2, column "),
            ("#cloud-config\n- a\n", "user_data: line 2, column 1: this is no mapping"),
            ("#cloud-config-archive\na: b\n", "user_data: line 2, column 1: this is no list"),
        ] {
            let told = told(text);
            assert!(told.starts_with(words) && told.ends_with(UNREAD), "{text:?}: {told}");
        }
        for (text, words) in [
            ("instance-id: a\n", ""),
            ("{\"instance-id\": \"a\"}", ""),
            ("version: 2\nethernets:\n  a: {dhcp4: true}\n", ""),
            ("version: 2\n ethernets: {}\n", "network_config: line 2, column "),
            ("- a\n", "network_config: line 1, column 1: this is no mapping"),
            ("instance-id=a\n", "network_config: line 1, column 1: this is no mapping"),
        ] {
            let mut problems = Vec::new();
            check_yaml("network_config", text, &mut problems);
            let told = problems.first().map(ToString::to_string).unwrap_or_default();
            assert_eq!(told.is_empty(), words.is_empty(), "{text:?}: {told}");
            assert!(told.starts_with(words), "{text:?}: {told}");
        }
    }

    #[test]
    fn user_data_begins_with_a_line_that_cloud_init_knows() {
        for known in [
            "#cloud-config\n",
            "#cloud-config\r\nhostname: a\r\n",
            "#cloud-config",
            "#cloud-config-archive\n- content: a\n",
            "#cloud-config-jsonp\n[]\n",
            "#!/bin/sh\necho\n",
            "#! /bin/sh\r\necho\r\n",
            "#include\nhttps://files.example/a\n",
            "#include https://files.example/a\n",
            "#include-once\nhttps://files.example/a\n",
            "#cloud-boothook\n#!/bin/sh\n",
            "#part-handler\n",
            "## template: jinja\n#cloud-config\n",
            "## template: jinja\r\n#!/bin/sh\n",
            "Content-Type: multipart/mixed; boundary=\"==\"\nMIME-Version: 1.0\n\n--==\n",
            "MIME-Version: 1.0\nContent-Type: text/cloud-config\n\n{}",
            "From nobody Mon Jan  1\nContent-Type: multipart/mixed\nmime-version: 1.0\n\n",
        ] {
            assert_eq!(ignored(known), None, "{known:?}");
        }
        let far = format!("Content-Type: text/x-a\nX: {}\nMIME-Version: 1.0\n", "é".repeat(3000));
        for (text, words) in [
            ("", "leave it out"),
            (" \n", "leave it out"),
            ("hostname: web-1\n", "without a word: the first line must be #cloud-config, "),
            ("\u{feff}#cloud-config\n", "byte order mark"),
            ("\n#cloud-config\n", "white space comes before"),
            (" #!/bin/sh\n", "white space comes before"),
            ("#Cloud-Config\n", "ignore it"),
            ("# cloud-config\n", "ignore it"),
            ("#cloud-init\n", "ignore it"),
            ("#upstart-job\n", "ignore it"),
            ("---\n#cloud-config\n", "ignore it"),
            ("# a comment\n#cloud-config\n", "ignore it"),
            ("users: []\n#cloud-config\n", "ignore it"),
            ("{\"ssh_authorized_keys\": []}", "ignore it"),
            ("H4sIAAAAAAAAA1NOzskvTdFNzs9Ly0znAgBk/5bHDgAAAA==", "base64 is not decoded"),
            ("I2Nsb3VkLWNvbmZpZwo=", "ignore it"),
            ("## template: jinja\nhostname: a\n", "after ## template: jinja"),
            ("## template: jinja", "after ## template: jinja"),
            ("## template: jinja2\n#cloud-config\n", "after ## template: jinja"),
            ("Content-Type: multipart/mixed\n\n--b\n", "MIME-Version: 1.0"),
            (&far, "MIME-Version: 1.0"),
        ] {
            let told = ignored(text).unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(told.contains(words), "{text:?}: {told}");
        }
    }
}
