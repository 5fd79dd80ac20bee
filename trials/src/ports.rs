// SPDX-License-Identifier: AGPL-3.0-or-later
//! Free ports for programs under test.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;

/// Below the ports that Linux gives to outgoing connections (32768 and up, net.ipv4.ip_local_port_range), so that
/// a controller finds its port free when it is killed and started again.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Returns a loopback port on which nothing listens now; a different one each time.
pub fn free_port() -> anyhow::Result<u16> {
    // Two concurrent runs begin at different ports.
    let begin = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|_| {
            let number = begin.wrapping_add(u32::from(NEXT.fetch_add(1, Ordering::Relaxed)));
            FIRST + u16::try_from(number % u32::from(COUNT)).unwrap_or(0)
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no port is free")
}
