// SPDX-License-Identifier: AGPL-3.0-or-later
//! What clap cannot check of the arguments.

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::{Args, Command, Server};

impl Args {
    /// What the derived parser cannot judge: a file where one is wanted, and a format elsewhere.
    pub fn checked(self) -> Result<Args, clap::Error> {
        let Command::Server { format, command } = &self.command else { return Ok(self) };
        let is_capture = matches!(command, Server::Capture { .. });
        let wrong = match format.file() {
            None if is_capture => "capture needs the file to write: --output FILE".to_owned(),
            Some(file) if !is_capture => {
                let given = file.display();
                format!("invalid value '{given}' for '--output': it is neither text nor json")
            }
            _ => return Ok(self),
        };
        Err(Args::command().error(ErrorKind::InvalidValue, wrong))
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use clap::Parser;

    use super::*;
    use crate::args::Output;

    #[test]
    fn output_is_a_format_or_the_file_of_a_capture() {
        let parse = |line: &str| {
            let args = Args::try_parse_from(line.split(' ')).unwrap().checked()?;
            let Command::Server { format, .. } = args.command else { panic!("another command") };
            Ok::<_, clap::Error>((format.format(), format.file().map(Path::to_owned)))
        };
        for (line, format, file) in [
            ("shoal server list", Output::Text, None),
            ("shoal server list --output json", Output::Json, None),
            ("shoal server --output json list", Output::Json, None),
            ("shoal server capture SN1 --output bmc.json", Output::Text, Some("bmc.json")),
            ("shoal server capture SN1 --output ./json", Output::Text, Some("./json")),
        ] {
            assert_eq!(parse(line).unwrap(), (format, file.map(PathBuf::from)), "{line}");
        }
        for (line, words) in [
            ("shoal server capture SN1", "--output FILE"),
            ("shoal server capture SN1 --output json", "--output FILE"),
            ("shoal server list --output yaml", "neither text nor json"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
    }
}
