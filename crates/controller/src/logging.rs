// SPDX-License-Identifier: AGPL-3.0-or-later
//! The controller's own log: every event is one line, whatever machines, BMCs and clients put into its fields. No
//! colours, because it is read in journals and files.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging to stderr, filtered by `RUST_LOG`.
pub fn start() {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(false)
        .with_writer(Lines(io::stderr))
        .init();
}

/// Makes writers that write one line each.
struct Lines<M>(M);

impl<'a, W: io::Write, M: Fn() -> W> MakeWriter<'a> for Lines<M> {
    type Writer = Line<W>;

    fn make_writer(&'a self) -> Line<W> {
        Line(self.0())
    }
}

/// Writes one event. The subscriber writes each event with one call, with one line break at its end.
struct Line<W>(W);

impl<W: io::Write> io::Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (line, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (&*text, ""),
        };
        self.0.write_all(format!("{}{end}", api::terminal::printable(line)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_its_fields() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(Lines(move || writer.clone()))
            .finish();
        let evil = "a\x1b[2J\u{9b}31m\u{202e}b\nERROR forged\r";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(evil, shown = %evil, debug = ?evil, "{evil}");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && text.contains("WARN"), "{text:?}");
        assert_eq!(
            text.trim_end_matches('\n'),
            api::terminal::printable(text.trim_end()),
            "{text:?}"
        );
    }
}
