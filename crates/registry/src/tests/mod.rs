// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry over HTTP: the real router, the real storage, a directory of its own.
//!
//! - `conformance`: what distribution-spec 1.1 and its suite ask for, in our own words;
//! - `suite`: what the rewritten suite does, with its data;
//! - `field`: what clients in the field send, each with what it met before;
//! - `negative`: what nobody should ask for;
//! - `storage`: what is on the disk, before and after a restart;
//! - `hostile`: documents that name each other too often;
//! - `judged`: whether what was pushed can be installed;
//! - `model`: random lives beside a simple model;
//! - `uploads`: what is open, whose it is, and who may end it;
//! - `upkeep`: collection, scrub, bundles;
//! - `clients`: programs that others wrote.

mod cases;
mod clients;
mod conformance;
mod field;
mod hostile;
mod judged;
mod model;
mod negative;
mod storage;
mod suite;
mod upkeep;
mod uploads;
mod world;
