// SPDX-License-Identifier: AGPL-3.0-or-later
//! Chooses the profile and the fault of each BMC: by a seed and shares, or every sensible pair once.

use std::collections::HashSet;

use super::fault::Fault;
use super::profile::{self, Profile};

/// The profile and the fault of one BMC.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub profile: &'static Profile,
    pub fault: Fault,
}

/// How many of 1,000 BMCs have this fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub fault: Fault,
    pub permille: u32,
}

/// Chooses `count` BMCs. The same arguments always give the same fleet.
pub fn chosen(
    count: usize,
    seed: u64,
    profiles: &[&'static Profile],
    shares: &[Share],
) -> Vec<Wanted> {
    let mut chance = fastrand::Rng::with_seed(seed);
    (0..count)
        .filter_map(|_| {
            let profile = *profiles.get(chance.usize(..profiles.len().max(1)))?;
            let mut drawn = chance.u32(..1000);
            let fault = shares.iter().find_map(|share| {
                let is_it = drawn < share.permille;
                drawn = drawn.saturating_sub(share.permille);
                is_it.then_some(share.fault)
            });
            Some(Wanted { profile, fault: fault.unwrap_or(Fault::None) })
        })
        .collect()
}

/// Every fault on every profile on which it makes sense.
pub fn matrix(faults: &[Fault], profiles: &[&'static Profile]) -> Vec<Wanted> {
    let of_profile = |profile: &'static Profile| {
        let sensible = faults.iter().filter(|fault| fault.makes_sense_on(profile));
        sensible.map(move |fault| Wanted { profile, fault: *fault })
    };
    profiles.iter().flat_map(|profile| of_profile(profile)).collect()
}

/// Chooses `count` pairs of the matrix by a seed. Each fault and each profile occurs, as long as `count` is large
/// enough.
pub fn sample(count: usize, seed: u64, matrix: &[Wanted]) -> Vec<Wanted> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut rest = matrix.to_vec();
    chance.shuffle(&mut rest);
    // On a BMC that the controller cannot use, most faults never occur.
    rest.sort_by_key(|wanted| wanted.profile.gap.is_some());
    let mut faults = HashSet::new();
    let (first, rest): (Vec<_>, Vec<_>) =
        rest.into_iter().partition(|wanted| faults.insert(wanted.fault));
    let mut profiles: HashSet<_> = first.iter().map(|wanted| wanted.profile.name).collect();
    // A profile without a fault shows that the controller handles the profile's own quirks.
    let is_next =
        |wanted: &Wanted| wanted.fault == Fault::None && profiles.insert(wanted.profile.name);
    let (second, more): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_next);
    first.into_iter().chain(second).chain(more).take(count).collect()
}

/// All profiles, or those with these names.
pub fn profiles(names: &[String]) -> Result<Vec<&'static Profile>, String> {
    if names.is_empty() {
        return Ok(profile::all().collect());
    }
    let known = || profile::all().map(|profile| profile.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            Profile::named(name)
                .ok_or_else(|| format!("{name:?} is no profile; there are: {}", known()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_fleet_and_shares_are_kept() {
        let all: Vec<_> = profile::all().collect();
        let shares = [Share { fault: Fault::Hang, permille: 200 }];
        let names = |seed| {
            let fleet = chosen(1000, seed, &all, &shares);
            fleet.iter().map(|w| (w.profile.name, w.fault)).collect::<Vec<_>>()
        };
        assert_eq!(names(7), names(7));
        assert_ne!(names(7), names(8));
        let hanging = names(7).iter().filter(|(_, fault)| *fault == Fault::Hang).count();
        assert!((150..250).contains(&hanging), "{hanging}");
    }

    #[test]
    fn a_sample_has_each_fault_and_then_each_profile() {
        let all: Vec<_> = profile::all().collect();
        let matrix = matrix(Fault::ALL, &all);
        let all: HashSet<_> = matrix.iter().map(|w| w.fault).collect();
        let sample = sample(all.len(), 1, &matrix);
        let faults: HashSet<_> = sample.iter().map(|w| w.fault).collect();
        assert_eq!(faults, all);
        let all: HashSet<_> = profile::all().map(|profile| profile.name).collect();
        let sample = super::sample(faults.len() + all.len(), 1, &matrix);
        let profiles: HashSet<_> = sample.iter().map(|w| w.profile.name).collect();
        assert_eq!(profiles, all);
    }
}
