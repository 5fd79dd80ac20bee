// SPDX-License-Identifier: AGPL-3.0-or-later
//! A Redfish client for real BMCs, which are slow, lose state and cannot be trusted.
//!
//! - `bmc`: requests with login and repetition; `transport`: single requests; `budgets`: time limits; `tls`,
//!   `certificate`: trust by a pin or a CA; `session`: logins; `links`: where a request may go; `answer`: limited
//!   bodies; `refusal`, `messages`, `cause`: the reasons for a refusal; `patience`: retries; `seen`: a short-lived
//!   cache of resources;
//! - `machine`: the machine as the BMC shows it; `discovery`: how it is found (no path is hard-coded except
//!   `/redfish/v1/`); `members`: reading collections with unreadable members;
//! - `slot`: the media that a slot accepts, and the ways to write it;
//! - `profile`: the differences between BMCs, as data;
//! - `virtual_media`, `boot`, `power`: actions, each confirmed by reading back; `boot_places`: where an override is
//!   written;
//! - `boot_settings`: reading and restoring the original boot override;
//! - `transcript`: requests and responses, as evidence; `secrets`: what is removed from it and from every other text;
//! - `remote_media`: whether virtual media is enabled at the BMC; `media_switch`: enabling and disabling it;
//! - `logs`: the progress of a boot, and event logs;
//! - `firmware`: inventory and updates; `capture`: all resources of a BMC as a file without identifying data;
//! - `converge`: the common steps of every action.
//!
//! Knows nothing of jobs, recipes or databases. Sources: DSP0266, DSP2046, vendor notes where named.

mod answer;
mod bmc;
mod boot;
mod boot_places;
mod boot_settings;
mod budgets;
mod capture;
mod cause;
mod certificate;
mod converge;
mod discovery;
mod document;
mod error;
mod firmware;
mod links;
mod logs;
mod machine;
mod media_switch;
mod members;
mod messages;
mod patience;
mod power;
mod profile;
mod refusal;
mod remote_media;
mod secrets;
mod seen;
mod session;
mod slot;
mod tls;
mod transcript;
mod transport;
mod virtual_media;

pub use bmc::{Bmc, Endpoint};
pub use boot_settings::{BootOverride, BootSettings};
pub use budgets::Budgets;
pub use capture::CaptureLimits;
pub use cause::Cause;
pub use error::Error;
pub use firmware::{Accepted, Firmware, Image};
pub use links::is_same as is_same_link;
pub use logs::{BootProgress, LogEntry};
#[doc(hidden)]
pub use machine::machine_of_answers;
pub use machine::{Machine, Power, Told, Wanted};
pub use power::{Restart, Shutdown};
pub use profile::{Profile, profile, profile_names};
pub use remote_media::RemoteMedia;
pub use secrets::Secret;
pub use slot::Slot;
pub use tls::{Trust, check_ca, fetch_certificate};
pub use transcript::Exchange;
