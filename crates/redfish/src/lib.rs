// SPDX-License-Identifier: AGPL-3.0-or-later
//! A Redfish client for BMCs as they are: slow, forgetful, and not to be trusted.
//!
//! - `transport`: TLS with a pin or a CA, sessions, bounded answers, retries;
//! - `machine`: what the BMC has (nothing is hard-coded but `/redfish/v1/`);
//! - `actions`: virtual media, boot override, power; each is proved by reading it back.
//!
//! Knows nothing of jobs, recipes or databases. Sources: DSP0266, DSP2046, vendor notes where named.

mod actions;
mod error;
mod machine;
mod tls;
mod transport;

pub use actions::Shutdown;
pub use error::Error;
pub use machine::{Machine, Power, Slot};
pub use tls::{Trust, check_ca, fetch_certificate};
pub use transport::{Bmc, Budgets, Endpoint, Secret};
