// SPDX-License-Identifier: AGPL-3.0-or-later
//! What is claimed of a controller, and the controllers that it is asked of.

use super::world::{Site, Wrong};

/// A claim about a controller, and what tells whether it holds.
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

/// Probes, the arguments of the controller that passes them all, and of those that do not.
pub struct Round {
    pub probes: Vec<Probe>,
    pub right: &'static [&'static str],
    pub wrong: &'static [(&'static [&'static str], Wrong)],
}
