// SPDX-License-Identifier: AGPL-3.0-or-later
//! The public contract: what travels as JSON between the controller and everyone else.
//!
//! - `jobs`, `servers`: what people and the CLI read and write under `/api/v1`;
//! - `node`: what a machine in the maintenance OS says under `/api/v1/node/attempts/{id}/`,
//!   and what a tool container says to the agent beside it;
//! - `problem`: every error answer (RFC 9457).
//!
//! Wire types only: no behaviour, no HTTP library, no knowledge of how a job is stored.

pub mod jobs;
pub mod node;
pub mod problem;
pub mod servers;
