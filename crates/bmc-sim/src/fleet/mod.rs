// SPDX-License-Identifier: AGPL-3.0-or-later
//! Thousands of BMCs and their machines in one process. Each BMC has a vendor's profile and at most one fault.
//!
//! ```text
//! client ──HTTPS 127.x.y.z:port──▶ server ──▶ bmc (profile, fault) ──reset──▶ node ──▶ media, controller
//!                                                                                └──▶ ledger
//! ```
//!
//! - `profile`: vendors, as data; `fault`: the faults, and what must be reported for each;
//! - `bmc`, `beside`, `session`, `actions`, `resources`, `reply`: the responses of one BMC; `asked`: requests
//!   that its profile alone rejects;
//! - `left`: what a job left at a BMC; `server`, `wire`: the bytes of a response; `shared`: state of the whole fleet;
//! - `firmware`: the installed firmware; `update`: the service that changes it;
//! - `node`, `layout`: what a machine reads and sends; `ledger`: events that must never happen;
//! - `choice`: the profile and the fault of each BMC, by a seed.

mod actions;
pub(crate) mod asked;
mod beside;
mod bmc;
mod choice;
pub mod fault;
mod firmware;
mod layout;
mod ledger;
mod left;
pub(crate) mod node;
pub mod profile;
pub(crate) mod reply;
pub(crate) mod resources;
mod server;
mod session;
mod shared;
mod update;
pub(crate) mod wire;

use std::net::Ipv4Addr;

pub(crate) use bmc::Medium;
pub use choice::{Share, Wanted, chosen, matrix, profiles, sample};
pub use fault::{Expected, Fault};
pub use profile::Profile;
pub use server::{Fleet, Member, Report};
pub use shared::Settings;
pub(crate) use shared::Shared;

/// The account on every BMC of the fleet.
pub const USERNAME: &str = "admin";
pub const PASSWORD: &str = "fleet-password";
/// The beginning of a firmware image that these BMCs accept. Its version follows.
pub const FIRMWARE_MAGIC: &str = "SHOAL-FLEET-FIRMWARE ";

/// The address of the BMC with this number. On Linux, all of 127.0.0.0/8 is this host.
fn address(index: usize) -> Ipv4Addr {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(u32::from(FIRST).saturating_add(number))
}

/// The number of the BMC with this address.
fn index_of(address: Ipv4Addr) -> Option<usize> {
    usize::try_from(address.to_bits().checked_sub(u32::from(FIRST))?).ok()
}

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 16, 0, 1);
/// An address to which no BMC may lead a client.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bmc_has_its_own_loopback_address() {
        for index in [0, 1, 255, 9_999, 100_000] {
            assert!(address(index).is_loopback());
            assert_eq!(index_of(address(index)), Some(index));
        }
        assert_eq!(index_of(STRANGER), None);
    }
}
