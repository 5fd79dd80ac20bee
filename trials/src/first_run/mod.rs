// SPDX-License-Identifier: AGPL-3.0-or-later
//! `cargo xtask first-run`: probes of a controller without configuration, from another host of its network.
//!
//! ```text
//! network namespace of the probes ── veth ── network namespace of the controller alone
//! ```
//!
//! The same probes then run on controllers with deliberate mistakes. If none of these fails a probe, the probe
//! cannot fail at all, and counts as failed. Both namespaces belong to processes and end with them.
//!
//! - `world`: the namespaces, a controller in one, clients in the other;
//! - `round`: claims about a controller, and the controllers that show that a claim can fail;
//! - `probes`: probes of a controller without configuration;
//! - `apart`: probes of a controller with three listeners.

mod apart;
mod probes;
mod round;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::tree::Tree;
use round::{Probe, Round};
use world::{Site, World, Wrong};

pub fn first_run(Tree { root, programs }: &Tree) -> anyhow::Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "first-run makes network namespaces: run it as root"
    );
    for (program, package) in
        [("unshare", "util-linux"), ("ip", "iproute2"), ("curl", "curl"), ("openssl", "openssl")]
    {
        let found = Command::new(program).arg("--help").output();
        ensure!(found.is_ok(), "{program} is missing; install the package {package}");
    }
    // When this process ends, the namespace and the network in it end too.
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(xtask::programs::trials(root))
        .arg("first-run-probes")
        .arg(programs)
        .status()
        .context("start unshare")?;
    ensure!(status.success(), "first-run ended with {status}");
    Ok(())
}

/// What `first-run` does in a network namespace of its own.
pub fn probes(root: &Path, programs: &Path) -> anyhow::Result<()> {
    let world = World::build(programs)?;
    let routes = world::routes(root)?;
    let rounds = [probes::round(&routes), apart::round(&routes)];
    let (mut passed, mut count) = (0, 0);
    for Round { probes, right, wrong } in rounds {
        let site = world.start(right, Wrong::Nothing)?;
        let mut failed = failures(&site, probes.iter());
        for (name, error) in &failed {
            println!("{name}: {error:#}");
        }
        drop(site);
        let mut can_fail = BTreeSet::new();
        for &(arguments, wrong) in wrong {
            let site = world.start(arguments, wrong)?;
            let unproven = probes.iter().filter(|probe| !can_fail.contains(probe.name.as_str()));
            let failures = failures(&site, unproven);
            can_fail.extend(failures.into_iter().map(|(name, _)| name));
        }
        for Probe { name, .. } in &probes {
            if !can_fail.contains(name.as_str()) {
                println!("{name}: no wrong controller fails it");
                failed.push((name, anyhow::anyhow!("cannot fail")));
            }
        }
        let bad: BTreeSet<&str> = failed.iter().map(|(name, _)| *name).collect();
        passed += probes.len() - bad.len();
        count += probes.len();
    }
    println!("first run: {passed}/{count} probes as they should be");
    ensure!(passed == count, "{} probes are not as they should be", count - passed);
    Ok(())
}

fn failures<'a>(
    site: &Site,
    probes: impl Iterator<Item = &'a Probe>,
) -> Vec<(&'a str, anyhow::Error)> {
    let outcomes = probes.map(|probe| (probe.name.as_str(), (probe.ask)(site)));
    outcomes.filter_map(|(name, outcome)| Some((name, outcome.err()?))).collect()
}
