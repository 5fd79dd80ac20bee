// SPDX-License-Identifier: AGPL-3.0-or-later
//! Checks of the maintenance OS's network: addresses, prefixes, routes and bonds.

use std::net::IpAddr;

use crate::model::{Bond, Interface, Network, Route};
use crate::prefix;
use crate::problem::{Problem, problem};
use crate::wire;

pub fn network_of(wire: &wire::Network, problems: &mut Vec<Problem>) -> Network {
    let mut interfaces = Vec::new();
    for (index, one) in wire.interfaces.iter().enumerate() {
        let place = |field: &str| format!("/network/interfaces/{index}/{field}");
        if one.macs.len() > 1 && one.bond.is_none() {
            problems.push(problem(
                place("macs"),
                "bond-missing",
                "several MACs need a `bond` mode",
            ));
        }
        let mut addresses = Vec::new();
        for (number, text) in one.addresses.iter().enumerate() {
            addresses.extend(network(place(&format!("addresses/{number}")), text, problems));
        }
        let mut list = |field: &str, texts: &[String]| -> Vec<IpAddr> {
            let of = |(number, text): (usize, &String)| {
                address(place(&format!("{field}/{number}")), text, problems)
            };
            texts.iter().enumerate().filter_map(of).collect()
        };
        let gateways = list("gateways", &one.gateways);
        let nameservers = list("nameservers", &one.nameservers);
        let mut routes = Vec::new();
        for (number, route) in one.routes.iter().enumerate() {
            let to = network(place(&format!("routes/{number}/to")), &route.to, problems);
            let via = address(place(&format!("routes/{number}/via")), &route.via, problems);
            if let (Some(to), Some(via)) = (to, via) {
                routes.push(Route { to, via });
            }
        }
        let dhcp = one.dhcp.unwrap_or(one.addresses.is_empty());
        let bond = one.bond.as_deref().map(|mode| match mode {
            "802.3ad" => Bond::Lacp,
            "balance-rr" => Bond::BalanceRr,
            "balance-xor" => Bond::BalanceXor,
            _ => Bond::ActiveBackup,
        });
        let macs = one.macs.iter().map(|mac| mac.to_ascii_lowercase()).collect();
        let (vlan, mtu) = (one.vlan, one.mtu);
        let interface =
            Interface { macs, bond, vlan, mtu, dhcp, addresses, gateways, nameservers, routes };
        // If an address was wrong, whether a gateway is reachable would only be a guess.
        let is_whole = interface.addresses.len() == one.addresses.len()
            && interface.gateways.len() == one.gateways.len()
            && interface.nameservers.len() == one.nameservers.len()
            && interface.routes.len() == one.routes.len();
        if is_whole {
            check_reach(&interface, &place, problems);
        }
        interfaces.push(interface);
    }
    Network { interfaces }
}

/// Rejects addresses that no host can have, and gateways that this interface cannot use.
fn check_reach(one: &Interface, place: &dyn Fn(&str) -> String, problems: &mut Vec<Problem>) {
    for (number, (address, length)) in one.addresses.iter().enumerate() {
        let why = prefix::refuses_host(*address)
            .or_else(|| prefix::refuses_host_of((*address, *length), *address));
        if let Some(why) = why {
            let message = format!("{address}/{length}: {address} {why}");
            problems.push(problem(place(&format!("addresses/{number}")), "address", message));
        }
    }
    for (number, server) in one.nameservers.iter().enumerate() {
        if let Some(why) = prefix::refuses_host(*server) {
            let message = format!("{server} {why}; write the address of a DNS server");
            problems.push(problem(place(&format!("nameservers/{number}")), "address", message));
        }
    }
    let gateways = one.gateways.iter().enumerate();
    let gateways = gateways.map(|(number, gateway)| (format!("gateways/{number}"), *gateway));
    let routes = one.routes.iter().enumerate();
    let vias = routes.map(|(number, route)| (format!("routes/{number}/via"), route.via));
    for (field, gateway) in gateways.chain(vias) {
        if let Some(why) = refuses_gateway(one, gateway) {
            let message = format!("{gateway} {why}; write the address of a router");
            problems.push(problem(place(&field), "gateway", message));
        }
    }
    for (number, route) in one.routes.iter().enumerate() {
        if route.to.0.is_ipv4() != route.via.is_ipv4() {
            let message = format!(
                "{} is of another family than {}; write a router of the same",
                route.via, route.to.0
            );
            problems.push(problem(place(&format!("routes/{number}/via")), "gateway", message));
        }
    }
}

fn refuses_gateway(one: &Interface, gateway: IpAddr) -> Option<&'static str> {
    if let Some(why) = prefix::refuses_host(gateway) {
        return Some(why);
    }
    if one.addresses.iter().any(|(address, _)| *address == gateway) {
        return Some("is an address of this interface itself");
    }
    let has_family = one.addresses.iter().any(|(own, _)| own.is_ipv4() == gateway.is_ipv4());
    if !has_family && !one.dhcp {
        return Some(match gateway {
            IpAddr::V4(_) => "is IPv4, and the interface has no IPv4 address",
            IpAddr::V6(_) => "is IPv6, and the interface has no IPv6 address",
        });
    }
    one.addresses.iter().find_map(|network| prefix::refuses_host_of(*network, gateway))
}

fn address(path: String, text: &str, problems: &mut Vec<Problem>) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        problems.push(problem(path, "address", format!("{text:?} is not an IP address")));
    }
    parsed
}

fn network(path: String, text: &str, problems: &mut Vec<Problem>) -> Option<(IpAddr, u8)> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
    });
    if parsed.is_none() {
        let message =
            format!("{text:?} is not an address with its prefix length, such as 192.0.2.10/24");
        problems.push(problem(path, "address", message));
    }
    parsed
}
