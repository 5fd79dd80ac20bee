// SPDX-License-Identifier: AGPL-3.0-or-later
//! Machines whose BMCs behave like those of a vendor, and checks of their slots during a job.

use anyhow::ensure;

use super::judge::at_rest;
use super::lab::{SERIAL, machine_with};
use super::world::{Machine, World};

/// A slot of this BMC offers the eject action only while it is occupied, and only some seconds after the insert. The
/// probe ejects as soon as the medium has been read, which is before that.
pub fn supermicro(world: &mut World) -> anyhow::Result<Machine> {
    let machine = machine_with(world, "cd,cd", &["--maker", "supermicro"])?;
    let probe = world.shoal(&["server", "probe", SERIAL])?;
    ensure!(probe["fetch"]["result"] == "read", "the BMC cannot read from us: {probe:#}");
    at_rest(world, &machine)?;
    world.tell("a Supermicro gave its medium back, although it offers to eject late");
    Ok(machine)
}

/// The first slots of this BMC, `RDOC1` and `RDOC2`, refuse URLs; its slots are filled by PATCH.
pub fn lenovo(world: &mut World) -> anyhow::Result<Machine> {
    machine_with(world, "cd,cd", &["--maker", "lenovo"])
}

/// Fails unless these slots, and no others, hold media.
pub fn holds_media(world: &World, machine: &Machine, ids: &[&str]) -> anyhow::Result<()> {
    let slots = world.slots(machine)?;
    let filled = slots.iter().filter(|slot| slot["Inserted"] == true);
    let filled: Vec<_> = filled.filter_map(|slot| slot["Id"].as_str()).collect();
    ensure!(filled == ids, "media are in {filled:?}, not in {ids:?}");
    Ok(())
}
