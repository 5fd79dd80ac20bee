// SPDX-License-Identifier: AGPL-3.0-or-later
//! The message on a terminal while a request takes long: the controller retries for minutes if a BMC does not respond.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Shorter waits need no message.
const SHOW_AFTER: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(500);
/// A working BMC responds within this time.
const LONG: Duration = Duration::from_secs(15);

/// Runs a request, and shows on a terminal what is waited for and for how long.
pub fn shown<T>(path: &str, work: impl FnOnce() -> T) -> T {
    // Nothing is shown if standard error is not a terminal.
    let line = line(path, ProgressDrawTarget::stderr());
    line.enable_steady_tick(TICK);
    let done = work();
    line.finish_and_clear();
    done
}

fn line(path: &str, target: ProgressDrawTarget) -> ProgressBar {
    let (soon, late) = words(path);
    let wait = move |state: &ProgressState, out: &mut dyn Write| {
        let elapsed = state.elapsed();
        if elapsed < SHOW_AFTER {
            return;
        }
        let words = if elapsed < LONG { soon } else { late };
        // A failure to write this line is harmless.
        let _ = write!(out, "shoal: {words} ({} s)", elapsed.as_secs());
    };
    let style = ProgressStyle::with_template("{wait}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("wait", wait);
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// The texts for what is waited for, at first and after a while.
fn words(path: &str) -> (&'static str, &'static str) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    // Paths below a server involve its BMC, except the state of its last update.
    let is_below = path.strip_prefix("/api/v1/servers/").is_some_and(|rest| rest.contains('/'));
    let is_visit = is_below && !path.ends_with("/firmware/update") || query.contains("mode=plan");
    if is_visit {
        return (
            "the controller asks the BMC",
            "the controller asks the BMC; one that does not answer is asked again for two minutes",
        );
    }
    if path.starts_with("/api/v1/artifacts/") {
        return ("the registry is at work", "the registry is at work; it reads all that it has");
    }
    ("waiting for the controller", "waiting for the controller")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            200
        }

        fn move_cursor_up(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _lines: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _columns: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_long_request_tells_what_it_waits_for_and_a_short_one_nothing() {
        for (path, secs, expected) in [
            ("/api/v1/servers/SN1/probe?insert=true", 0, ""),
            ("/api/v1/servers/SN1/probe?insert=true", 1, ""),
            (
                "/api/v1/servers/SN1/probe?insert=true",
                3,
                "shoal: the controller asks the BMC (3 s)",
            ),
            (
                "/api/v1/servers/SN1/actions/power",
                70,
                "shoal: the controller asks the BMC; one that does not answer is asked again for two minutes (70 s)",
            ),
            ("/api/v1/jobs?mode=plan", 5, "shoal: the controller asks the BMC (5 s)"),
            ("/api/v1/artifacts/gc?uploads=false", 9, "shoal: the registry is at work (9 s)"),
            ("/api/v1/jobs", 9, "shoal: waiting for the controller (9 s)"),
        ] {
            let terminal = Terminal::default();
            let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
            let line = line(path, target).with_elapsed(Duration::from_secs(secs));
            line.tick();
            let shown = terminal.0.lock().unwrap().trim().to_owned();
            assert_eq!(shown, expected, "{path} after {secs} s");
        }
    }
}
