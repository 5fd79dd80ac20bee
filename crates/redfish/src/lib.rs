// SPDX-License-Identifier: AGPL-3.0-or-later
//! A Redfish client for BMCs as they are: slow, forgetful, and not to be trusted.
//!
//! - `bmc`: requests with a login, repeated; `transport`: one request; `budgets`: their times; `tls`, `certificate`: a pin or a CA; `session`: logins; `links`: where a request may go;
//!   `answer`: bounded bodies; `refusal`, `messages`, `cause`: what a BMC says when it refuses; `patience`: retries; `seen`: what
//!   need not be read twice in a moment;
//! - `machine`: what the BMC has; `discovery`: how it is found (nothing is hard-coded but `/redfish/v1/`); `members`:
//!   what of a collection can be read;
//! - `slot`: what a media slot takes, and in which ways it is written;
//! - `profile`: what differs between BMCs, as data;
//! - `virtual_media`, `boot`, `power`: actions, each proved by reading it back; `boot_places`: where an override is
//!   written;
//! - `boot_settings`: the boot override as it was found, and its return;
//! - `transcript`: what was said, for evidence; `secrets`: what is taken out of it and of every other text;
//! - `remote_media`: whether the BMC has virtual media switched off; `media_switch`: the switch;
//! - `logs`: how far a boot came, and event logs;
//! - `firmware`: its inventory and updates; `capture`: everything that a BMC shows, as a file without names;
//! - `converge`: what every action needs for that.
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
