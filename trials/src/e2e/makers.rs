// SPDX-License-Identifier: AGPL-3.0-or-later
//! Machines whose BMCs are like those of a maker, and what is seen of their slots during a job.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::world::{Machine, World};
use super::{SERIAL, at_rest, machine_with};

/// A slot of this BMC offers to eject only while it is occupied, and some seconds after the insert. The
/// probe ejects as soon as it has seen the medium read, which is before that.
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

/// The virtual media of a machine, in the BMC's order.
pub fn slots(world: &World, machine: &Machine) -> anyhow::Result<Vec<Value>> {
    let system = world.system(machine)?;
    let owner = match system.get("VirtualMedia") {
        Some(_) => system,
        None => world.manager(machine)?,
    };
    let media = owner["VirtualMedia"]["@odata.id"].as_str().context("there are no media")?;
    let media = world.redfish(machine, media)?;
    let slots = media["Members"].as_array().context("no slots")?.iter().map(|member| {
        let path = member["@odata.id"].as_str().context("a slot has no id")?;
        world.redfish(machine, path)
    });
    slots.collect()
}

/// Fails unless these slots, and no others, hold media.
pub fn holds_media(world: &World, machine: &Machine, ids: &[&str]) -> anyhow::Result<()> {
    let slots = slots(world, machine)?;
    let filled = slots.iter().filter(|slot| slot["Inserted"] == true);
    let filled: Vec<_> = filled.filter_map(|slot| slot["Id"].as_str()).collect();
    ensure!(filled == ids, "media are in {filled:?}, not in {ids:?}");
    Ok(())
}
