// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal server set` and `shoal server power`, and where `shoal server` writes, as they are typed.

use std::path::{Path, PathBuf};

use super::output::Output;

/// The word that leaves the profile to what the BMC says.
pub const PROFILE_BY_BMC: &str = "auto";

/// `--output` of `shoal server`: how the answer is shown, or of `capture` the file that is written.
#[derive(Debug, Clone, clap::Args)]
pub struct FormatOrFile {
    /// Tables for people (text), or the API's JSON for scripts (json); for `capture`: the file.
    #[arg(
        long = "output",
        global = true,
        id = "format",
        value_name = "FORMAT|FILE",
        default_value = "text"
    )]
    given: PathBuf,
}

impl FormatOrFile {
    pub fn format(&self) -> Output {
        if self.given == Path::new("json") { Output::Json } else { Output::Text }
    }

    pub fn file(&self) -> Option<&Path> {
        let is_format = ["text", "json"].iter().any(|word| self.given == Path::new(word));
        (!is_format).then_some(&self.given)
    }
}

#[derive(Debug, clap::Args)]
pub struct SetServer {
    /// Serial number, as the machine's SMBIOS and its BMC tell it.
    pub serial: String,
    /// https:// and the BMC's address, optionally a port. What is left out of a server that is known
    /// stays as it is.
    #[arg(long)]
    pub bmc_url: Option<String>,
    /// The BMC's account.
    #[arg(long)]
    pub username: Option<String>,
    /// File with the password; `-` reads it from standard input. A known one is kept while URL and user
    /// name stay the same.
    #[arg(long)]
    pub password_file: Option<PathBuf>,
    /// SHA-256 of the BMC's certificate, in hex with or without colons; without it the certificate of
    /// before stays, and of a new server or URL the one that the BMC shows now is pinned.
    #[arg(long, conflicts_with = "bmc_ca", value_parser = pin)]
    pub pin: Option<String>,
    /// File with the CA that signed the BMC's certificate.
    #[arg(long)]
    pub bmc_ca: Option<PathBuf>,
    /// Family of BMCs, such as dell-idrac9, where the BMC itself does not tell; `server probe`
    /// shows what it tells. `auto` goes by the BMC again.
    #[arg(long)]
    pub bmc_profile: Option<String>,
    /// Let a machine be written whose UUID is not the one that its BMC tells: for BMCs that tell a
    /// wrong one. Two machines of one serial number are not told apart then. `false` ends it.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub dangerously_ignore_uuid: Option<bool>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Power {
    On,
    /// The running system is asked first.
    Off,
    ForceOff,
    /// The running system is asked to restart; a server that is off is switched on.
    #[value(alias = "reboot")]
    Restart,
    /// Start anew at once, as by the reset button; a server that is off is switched on.
    Reset,
    /// Take the power away and give it again; a server that is off is switched on.
    Cycle,
}

/// A SHA-256 in the forms in which openssl, browsers and BMCs show it, as plain hex.
fn pin(text: &str) -> Result<String, &'static str> {
    let lower = text.trim().to_ascii_lowercase();
    // openssl writes `sha256 Fingerprint=AB:CD:…`.
    let digits = lower.strip_prefix("sha256").map_or(&*lower, |rest| {
        rest.trim_start_matches(" fingerprint").trim_start_matches([':', '=', ' '])
    });
    let digits: String = digits.chars().filter(|letter| !matches!(letter, ':' | ' ')).collect();
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits);
    }
    Err(
        "write 64 hex digits, plain or as AB:CD:…, such as `openssl x509 -noout -fingerprint -sha256` shows",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_taken_in_every_form_in_which_it_is_shown() {
        let plain = "0123456789abcdef".repeat(4);
        let colons: Vec<&str> = (0..32).map(|i| &plain[2 * i..2 * i + 2]).collect();
        for text in [
            plain.clone(),
            plain.to_uppercase(),
            format!("sha256:{plain}"),
            format!("SHA256:{}", plain.to_uppercase()),
            colons.join(":"),
            colons.join(" "),
            format!("sha256 Fingerprint={}", colons.join(":").to_uppercase()),
            format!("SHA256 Fingerprint={}\n", colons.join(":").to_uppercase()),
        ] {
            assert_eq!(pin(&text).as_ref(), Ok(&plain), "{text}");
        }
        for bad in
            ["", "sha256:", &plain[1..], &format!("{plain}0"), &plain.replace('0', "g"), "sha1:ab"]
        {
            assert!(pin(bad).is_err(), "{bad}");
        }
    }
}
