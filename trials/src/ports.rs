// SPDX-License-Identifier: AGPL-3.0-or-later
//! Ports for programs under test.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

/// Below those that Linux gives to outgoing connections (32768 and up, net.ipv4.ip_local_port_range): a
/// controller that is killed and started again finds its port free.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port of the loopback that nobody listens on now; another one each time.
pub fn free_port() -> anyhow::Result<u16> {
    // Two runs at once begin at different places.
    let begin = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|_| {
            let number = begin.wrapping_add(u32::from(NEXT.fetch_add(1, Ordering::Relaxed)));
            FIRST + u16::try_from(number % u32::from(COUNT)).unwrap_or(0)
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no port is free")
}
