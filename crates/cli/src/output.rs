// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tables for people, JSON for scripts.

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
        Output::Text => print!("{}", table(head, &rows(value))),
    }
}

pub fn json(value: &Value) {
    println!("{value:#}");
}

/// The text at a pointer; empty where there is none.
pub fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// What a terminal would take as a command is not for it: texts come from BMCs and machines.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
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
        format!("{}\n", cells.join("  ").trim_end())
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
            "SERIAL       BMC\nSN1          https://10.0.0.1\nLONG-SERIAL   [2J\n"
        );
    }
}
