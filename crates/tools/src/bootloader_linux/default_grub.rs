// SPDX-License-Identifier: AGPL-3.0-or-later
//! A parser of `/etc/default/grub`: assignments in shell syntax, never executed. A value that only a shell could
//! compute (a command's output) is unknown.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// The variables that the files set. Later files can read and replace those of earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Reads one more file.
    pub fn read(&mut self, text: &str) {
        let mut letters = text.chars().peekable();
        while let Some(statement) = next_word(&mut letters) {
            let statement = match statement.as_str() {
                "export" => continue,
                _ => statement,
            };
            let Some(name) = statement.strip_suffix('=') else {
                skip_line(&mut letters);
                continue;
            };
            let (name, before) = match name.strip_suffix('+') {
                Some(name) => (name, self.get(name).unwrap_or_default().to_owned()),
                None => (name, String::new()),
            };
            let value = self.value(&mut letters);
            match value {
                Some(value) => self.0.insert(name.to_owned(), before + &value),
                None => self.0.remove(name),
            };
        }
    }

    /// A value up to the next unquoted blank. `None` if it has parts that only a shell can compute.
    fn value(&self, letters: &mut Peekable<Chars>) -> Option<String> {
        let mut value = String::new();
        let mut is_known = true;
        let mut in_quotes = false;
        while let Some(letter) = letters.peek().copied() {
            if !in_quotes && (letter.is_whitespace() || matches!(letter, ';' | '&' | '|')) {
                break;
            }
            letters.next();
            match letter {
                '"' => in_quotes = !in_quotes,
                '\'' if !in_quotes => value.extend(letters.by_ref().take_while(|l| *l != '\'')),
                '\\' => match letters.next() {
                    Some('\n') | None => {}
                    Some(next) if in_quotes && !matches!(next, '"' | '\\' | '$' | '`') => {
                        value.extend(['\\', next]);
                    }
                    Some(next) => value.push(next),
                },
                '`' => {
                    letters.by_ref().take_while(|letter| *letter != '`').for_each(drop);
                    is_known = false;
                }
                '$' => match self.expansion(letters) {
                    Some(text) => value.push_str(&text),
                    None => is_known = false,
                },
                _ => value.push(letter),
            }
        }
        is_known.then_some(value)
    }

    fn expansion(&self, letters: &mut Peekable<Chars>) -> Option<String> {
        let is_word = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
        match letters.peek()? {
            '{' => {
                letters.next();
                let name: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
                // `${name:-default}` and similar expansions are not evaluated.
                name.chars().all(|l| is_word(&l)).then(|| self.variable(&name))
            }
            '(' => {
                let mut depth = 0;
                for letter in letters.by_ref() {
                    depth += i32::from(letter == '(') - i32::from(letter == ')');
                    if depth == 0 {
                        break;
                    }
                }
                None
            }
            letter if is_word(letter) => {
                let mut name = String::new();
                while let Some(letter) = letters.next_if(is_word) {
                    name.push(letter);
                }
                Some(self.variable(&name))
            }
            _ => Some("$".into()),
        }
    }

    /// The value of a variable; empty if it is not set, as in a shell.
    fn variable(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }
}

/// The name at the start of the next word: up to and including `=` for an assignment. Comments are skipped.
fn next_word(letters: &mut Peekable<Chars>) -> Option<String> {
    loop {
        match letters.peek()? {
            '#' => skip_line(letters),
            letter if letter.is_whitespace() || *letter == ';' => drop(letters.next()),
            _ => break,
        }
    }
    let mut word = String::new();
    while let Some(letter) = letters.next_if(|letter| !letter.is_whitespace()) {
        word.push(letter);
        if letter == '=' {
            break;
        }
    }
    Some(word)
}

fn skip_line(letters: &mut Peekable<Chars>) {
    letters.by_ref().take_while(|letter| *letter != '\n').for_each(drop);
}

/// Splits a command line into words and removes the quotes.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for letter in line.chars() {
        match (letter, quote) {
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_a_shell_would_without_running_anything() {
        let mut settings = Settings::default();
        settings.read(
            r#"# comment with GRUB_TIMEOUT=99
GRUB_DEFAULT=0
GRUB_TIMEOUT="5"   # seconds
GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`
OTHER=$( . /etc/os-release; echo ${NAME:-x} )tail
export GRUB_CMDLINE_LINUX_DEFAULT="quiet splash"
GRUB_CMDLINE_LINUX='console=tty0 '"console=ttyS0,115200n8 dyndbg=\"file a +p\""
if [ -f /x ]; then touch /x; fi
GRUB_TERMINAL=console\ serial
TWO="a \
b"; THREE=3
"#,
        );
        let late = "GRUB_CMDLINE_LINUX_DEFAULT=\"${GRUB_CMDLINE_LINUX_DEFAULT} more $UNSET\"\n\
                    GRUB_TIMEOUT+=0\n";
        settings.read(late);
        for (name, expected) in [
            ("GRUB_DEFAULT", Some("0")),
            ("GRUB_TIMEOUT", Some("50")),
            ("GRUB_DISTRIBUTOR", None),
            ("OTHER", None),
            ("GRUB_CMDLINE_LINUX_DEFAULT", Some("quiet splash more ")),
            (
                "GRUB_CMDLINE_LINUX",
                Some("console=tty0 console=ttyS0,115200n8 dyndbg=\"file a +p\""),
            ),
            ("GRUB_TERMINAL", Some("console serial")),
            ("TWO", Some("a b")),
            ("THREE", Some("3")),
        ] {
            assert_eq!(settings.get(name), expected, "{name}");
        }
    }

    #[test]
    fn no_text_can_make_the_parser_fail() {
        for text in ["A=\"", "A='", "A=`", "A=$(", "A=${", "A=\\", "A", "=", "$", "A=$", "\u{e9}=1"]
        {
            Settings::default().read(text);
        }
    }

    #[test]
    fn quotes_hold_words_together() {
        let line = "ro dyndbg=\"file a +p\" 'x y' \"\" a'b'c";
        assert_eq!(words(line), ["ro", "dyndbg=file a +p", "x y", "", "abc"]);
    }
}
