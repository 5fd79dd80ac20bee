// SPDX-License-Identifier: AGPL-3.0-or-later
//! Output: tables for people, JSON for scripts. Everything that this program prints goes through here, because texts
//! come from BMCs, machines and other people, and may contain control characters that a terminal would execute.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::Mutex;

use api::terminal;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::args::Output;

/// Prints a response: as JSON, or as the rows that `rows` makes of it.
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

/// Prints JSON unchanged in meaning, with escapes for control characters.
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

/// Why writing to standard output failed. The command continues, because its work does not depend on its output.
static CLOSED: Mutex<Option<io::ErrorKind>> = Mutex::new(None);

/// Returns the error that ended standard output, such as `BrokenPipe` after `| head`.
pub fn closed() -> Option<io::ErrorKind> {
    *CLOSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn print(text: &str) {
    if closed().is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        *CLOSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error.kind());
    }
}

/// Prints why the command did not succeed, on several lines. The caller has made each text printable.
pub fn failed(lines: &str) {
    print_error(lines);
}

/// Prints one line for people, in addition to the command's result.
pub fn note(line: &str) {
    print_error(&printable(line));
}

fn print_error(text: &str) {
    // If standard error is closed, the failure cannot be reported anywhere.
    let _ = writeln!(io::stderr().lock(), "shoal: {text}");
}

/// Formats a time of the API in the local time zone, with date and zone; any other text is returned unchanged.
pub fn time(text: &str) -> String {
    local(text, &TimeZone::system())
}

fn local(text: &str, zone: &TimeZone) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// Returns the text at a pointer; empty if there is none.
pub fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Makes a foreign text safe for a terminal.
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
    fn a_time_has_its_date_and_its_zone() {
        let at = "2026-11-30T23:39:13.123Z";
        assert_eq!(local(at, &TimeZone::UTC), "2026-11-30 23:39:13 UTC");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(local(at, &east), "2026-12-01 01:39:13 +02");
        assert_eq!(local("soon", &east), "soon");
    }

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
