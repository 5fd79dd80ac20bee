// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tables for people, JSON for scripts. All that this program prints goes through here: texts come from BMCs,
//! machines and other people, and a terminal obeys what is in them.

use std::borrow::Cow;

use api::terminal;
use serde_json::Value;

use crate::args::Output;

/// Shows an answer: as it is, or as the rows that `rows` makes of it.
pub fn show(
    format: Output,
    value: &Value,
    head: &[&str],
    rows: impl FnOnce(&Value) -> Vec<Vec<String>>,
) {
    match format {
        Output::Json => json(value),
        Output::Text => table(head, &rows(value)).iter().for_each(|line| say(line)),
    }
}

/// JSON is data: it stays what it is, with escapes for what a terminal would obey.
pub fn json(value: &Value) {
    print(&terminal::escaped_json(&format!("{value:#}")));
}

/// The same on one line.
pub fn json_line(value: &Value) {
    print(&terminal::escaped_json(&value.to_string()));
}

/// One line of text.
pub fn say(line: &str) {
    print(&printable(line));
}

#[expect(clippy::print_stdout, reason = "the one place that prints results")]
fn print(text: &str) {
    println!("{text}");
}

/// Why the command did not succeed: several lines, of which each text was made printable.
#[expect(clippy::print_stderr, reason = "the one place that prints failures")]
pub fn failed(lines: &str) {
    eprintln!("shoal: {lines}");
}

/// One line for people, beside what the command answers.
#[expect(clippy::print_stderr, reason = "the one place that prints notes")]
pub fn note(line: &str) {
    eprintln!("shoal: {}", printable(line));
}

/// The text at a pointer; empty where there is none.
pub fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A foreign text as a terminal may have it.
pub fn printable(text: &str) -> Cow<'_, str> {
    terminal::printable(text)
}

fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            all()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let cell = |(cell, width): (&String, &usize)| format!("{:<width$}", printable(cell));
        let cells: Vec<String> = row.iter().zip(&widths).map(cell).collect();
        cells.join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["SN1".into(), "https://10.0.0.1".into()],
            vec!["LONG-SERIAL".into(), "\x1b[2J".into()],
        ];
        assert_eq!(
            table(&["SERIAL", "BMC"], &rows),
            ["SERIAL       BMC", "SN1          https://10.0.0.1", "LONG-SERIAL  \u{fffd}[2J",]
        );
    }
}
