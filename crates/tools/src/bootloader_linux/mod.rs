// SPDX-License-Identifier: AGPL-3.0-or-later
//! stub
use crate::context::Context;
pub fn run(_context: &Context) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
