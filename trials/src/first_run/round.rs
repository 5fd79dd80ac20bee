// SPDX-License-Identifier: AGPL-3.0-or-later
//! A round: claims about a controller, and the controllers on which they are tested.

use super::world::{Site, Wrong};

/// A claim about a controller, and the function that tests it.
pub struct Probe {
    pub name: String,
    pub ask: Box<Ask>,
}

pub type Ask = dyn Fn(&Site) -> anyhow::Result<()>;

pub fn probe(
    name: impl Into<String>,
    ask: impl Fn(&Site) -> anyhow::Result<()> + 'static,
) -> Probe {
    Probe { name: name.into(), ask: Box::new(ask) }
}

/// Probes, the arguments of the controller that must pass them all, and of those that must fail.
pub struct Round {
    pub probes: Vec<Probe>,
    pub right: &'static [&'static str],
    pub wrong: &'static [(&'static [&'static str], Wrong)],
}
