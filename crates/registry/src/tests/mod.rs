// SPDX-License-Identifier: AGPL-3.0-or-later
//! Tests of the registry over HTTP: the real router and the real storage, in a temporary directory.
//!
//! - `conformance`: the requirements of distribution-spec 1.1 and of its suite;
//! - `suite`: the same requests as the rewritten suite, with its data;
//! - `field`: requests that real clients send, each with the client that sent it;
//! - `negative`: invalid requests;
//! - `storage`: the files on disk, before and after a restart;
//! - `hostile`: documents that refer to each other excessively;
//! - `judged`: whether a pushed artifact can be installed;
//! - `model`: random operations, compared with a simple model;
//! - `uploads`: open uploads, their owners, and who may end them;
//! - `upkeep`: collection, scrub, bundles;
//! - `clients`: tests with other projects' client programs.

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
