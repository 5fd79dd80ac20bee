// SPDX-License-Identifier: AGPL-3.0-or-later
//! The text that `shoal lab up` prints: one command that installs the machine, and how to log in.

use std::path::{Path, PathBuf};

use super::files::{self, listed, quoted};
use crate::output::say;

/// The values of the text that is printed when the lab is up.
pub struct Told<'a> {
    pub dir: &'a Path,
    pub serial: &'a str,
    pub recipe: &'a Path,
    pub ssh_key: Option<&'a Path>,
    pub ssh_port: u16,
    /// The BMC's address and account.
    pub redfish: String,
}

impl Told<'_> {
    /// Prints the text. If the registry lacks the recipe's artifact, it says to push the image first.
    pub fn tell(&self, lacking: Option<&str>, looked: Vec<PathBuf>, shoal: &[String]) {
        let Told { dir, serial, redfish, .. } = self;
        say(&format!("A controller and a machine with serial {serial} are up."));
        say("");
        if let Some(name) = lacking {
            say(&format!(
                "The recipe installs {name}, which is not in the registry yet. Make an image (docs/images.md; in the \
                 source tree: `cargo xtask images rootfs`) and push it:"
            ));
            say("");
            say(&format!("  {}", command(shoal, &["artifact", "push", name, files::ROOTFS])));
            say("");
            if !looked.is_empty() {
                say(&format!("(`lab up` pushes it by itself from any of: {})", listed(&looked)));
                say("");
            }
        }
        let recipe = self.recipe.display().to_string();
        let create = ["job", "create", "--server", serial, "--recipe", &recipe, "--watch"];
        say("This installs the machine; type it in another terminal:");
        say("");
        say(&format!("  {}", command(shoal, &create)));
        say("");
        for line in self.others(shoal) {
            say(&line);
        }
        say("");
        say(&format!("Redfish:         {redfish}"));
        say(&format!(
            "Serial console:  tail -f {}",
            quoted(&dir.join("bmc/console.log").display().to_string())
        ));
        say("");
        say(&format!(
            "Ctrl-C or `shoal lab down` stops both; {} keeps the disk and the data.",
            dir.display()
        ));
    }

    /// How to log in, and the variables that shorten further commands.
    fn others(&self, shoal: &[String]) -> Vec<String> {
        let Told { ssh_key, ssh_port, .. } = self;
        let port = ssh_port.to_string();
        let login = match ssh_key {
            Some(key) => {
                let key = key.display().to_string();
                // Each installation has host keys of its own.
                let known =
                    ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
                let words = [&["ssh", "-i", &key, "-p", &port][..], &known].concat();
                format!("  {} shoal@127.0.0.1", command(&[], &words))
            }
            None => format!(
                "  ssh -p {port} shoal@127.0.0.1    with your key in {}: there is no ssh-keygen here to make one",
                self.recipe.display()
            ),
        };
        let value = |option: &str| {
            let mut words = shoal.iter().skip_while(|word| *word != option);
            quoted(words.nth(1).map_or("", String::as_str))
        };
        vec![
            "Then, to log in:".into(),
            String::new(),
            login,
            String::new(),
            "For other commands of shoal in that terminal:".into(),
            String::new(),
            format!(
                "  export SHOAL_CONTROLLER={} SHOAL_CA={} SHOAL_TOKEN_FILE={}",
                value("--controller"),
                value("--ca"),
                value("--token-file")
            ),
        ]
    }
}

/// Quotes arguments as one line for a shell.
fn command(first: &[String], rest: &[&str]) -> String {
    let words = first.iter().map(String::as_str).chain(rest.iter().copied());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}
