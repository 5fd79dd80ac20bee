// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-bmc-sim fleet`: prints one line of JSON with all BMCs, then serves until standard input ends. For each line
//! of input, and at its end, prints one line with the observations so far.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use bmc_sim::fleet::{self, Fault, Fleet, PASSWORD, Settings, Share, USERNAME, Wanted};
use serde_json::json;

#[derive(clap::Args)]
pub struct Arguments {
    /// How many BMCs; with --matrix, how many of its pairs (all, if it is not given).
    #[arg(long)]
    count: Option<usize>,
    /// Decides which BMC is what.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A vendor's BMC; can be given several times [default: all].
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// What part of the BMCs has this fault, such as hang=0.2; with --matrix the name alone.
    #[arg(long = "fault", value_name = "NAME=SHARE")]
    faults: Vec<String>,
    /// Every fault on every BMC where it makes sense.
    #[arg(long)]
    matrix: bool,
    /// Time before each answer, such as 5ms.
    #[arg(long, default_value = "0ms", value_parser = duration)]
    latency: Duration,
    /// What part of a real BMC's time a restart takes here.
    #[arg(long, default_value_t = 0.01)]
    time_scale: f64,
    /// The image that the machines will be given.
    #[arg(long)]
    maintenance_iso: PathBuf,
    /// Holds the certificates.
    #[arg(long)]
    work_dir: PathBuf,
    /// Where all of them listen; 0 takes a free port.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Fails if a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    take_all_files();
    let wanted = wanted(&arguments)?;
    let settings = Settings {
        port: arguments.port,
        latency: arguments.latency,
        time_scale: arguments.time_scale,
        maintenance_iso: arguments.maintenance_iso,
        work_dir: arguments.work_dir,
    };
    let fleet = Fleet::start(settings, &wanted).await?;
    println!(
        "{}",
        json!({
            "certificate_sha256": fleet.certificate_sha256,
            "username": USERNAME,
            "password": PASSWORD,
            "bmcs": fleet.members(),
        })
    );
    let (asked, mut questions) = tokio::sync::mpsc::channel(1);
    let reader = tokio::task::spawn_blocking(move || {
        io::stdin().lines().try_for_each(|line| {
            line?;
            asked.blocking_send(()).map_err(io::Error::other)
        })
    });
    while questions.recv().await.is_some() {
        report(&fleet)?;
    }
    reader.await?.context("wait for the end of the input")?;
    report(&fleet)?;
    fleet.stop();
    Ok(())
}

fn report(fleet: &Fleet) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(&fleet.report()).context("write the report")?);
    Ok(())
}

fn wanted(arguments: &Arguments) -> anyhow::Result<Vec<Wanted>> {
    let profiles = fleet::profiles(&arguments.profiles).map_err(anyhow::Error::msg)?;
    if !arguments.matrix {
        let shares: Vec<Share> =
            arguments.faults.iter().map(|text| share(text)).collect::<Result<_, _>>()?;
        let count = arguments.count.context("--count is needed without --matrix")?;
        return Ok(fleet::chosen(count, arguments.seed, &profiles, &shares));
    }
    let faults: Vec<Fault> = match arguments.faults.as_slice() {
        [] => Fault::ALL.to_vec(),
        names => names.iter().map(|name| fault(name)).collect::<Result<_, _>>()?,
    };
    let all = fleet::matrix(&faults, &profiles);
    Ok(match arguments.count {
        Some(count) => fleet::sample(count, arguments.seed, &all),
        None => all,
    })
}

fn fault(name: &str) -> anyhow::Result<Fault> {
    Fault::named(name).with_context(|| {
        let known: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        format!("{name:?} is no fault; there are: {}", known.join(", "))
    })
}

fn share(text: &str) -> anyhow::Result<Share> {
    let (name, part) = text.split_once('=').with_context(|| format!("{text:?}: write hang=0.2"))?;
    let fault = fault(name)?;
    match part.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        Ok(part) if (0.0..=1.0).contains(&part) => {
            Ok(Share { fault, permille: (part * 1000.0).round() as u32 })
        }
        _ => bail!("{text:?}: {part:?} is not a part from 0 to 1"),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time; write 5ms or 2s");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(count)),
        "s" => Ok(Duration::from_secs(count)),
        _ => Err(wrong()),
    }
}

/// Raises the limit of open files to the maximum: a BMC with a client needs two.
fn take_all_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times_are_told_in_words_when_wrong() {
        assert_eq!(share("hang=0.2").unwrap(), Share { fault: Fault::Hang, permille: 200 });
        assert_eq!(duration("5ms").unwrap(), Duration::from_millis(5));
        for (text, words) in [
            ("hang", "write hang=0.2"),
            ("hang=2", "not a part from 0 to 1"),
            ("hung=0.2", "there are: none, hang"),
        ] {
            let error = share(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(duration("5").unwrap_err().contains("5ms or 2s"));
    }
}
