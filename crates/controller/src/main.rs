// SPDX-License-Identifier: AGPL-3.0-or-later
//! `shoal-controller`: takes recipes, drives BMCs, records what really happened.

fn main() -> anyhow::Result<()> {
    controller::run()
}
