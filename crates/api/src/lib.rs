// SPDX-License-Identifier: AGPL-3.0-or-later
//! The public contract: what travels as JSON between the controller and everyone else.
//!
//! - `jobs`, `servers`: what people and the CLI read and write under `/api/v1`;
//! - `node`: what a machine in the maintenance OS says under `/api/v1/node/attempts/{id}/`,
//!   and what a tool container says to the agent beside it;
//! - `signal`: what it tells where it cannot say anything;
//! - `artifacts`: what the controller's registry holds, for people;
//! - `access`: tokens and their roles, and the audit log;
//! - `problem`: every error answer (RFC 9457);
//! - `terminal`: foreign text where people read it;
//! - `openapi`: the document that describes all of it, built from these types.
//!
//! Wire types only: no behaviour, no HTTP library, no knowledge of how a job is stored.

pub mod access;
pub mod artifacts;
pub mod jobs;
pub mod node;
pub mod openapi;
pub mod problem;
pub mod servers;
pub mod signal;
pub mod terminal;
