// SPDX-License-Identifier: AGPL-3.0-or-later
//! The network of the maintenance OS: addresses, prefixes and bonds that are what they say.

use std::net::IpAddr;

use crate::model::{Bond, Interface, Network, Route};
use crate::validate::{Problem, problem};
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
            addresses.extend(prefix(place(&format!("addresses/{number}")), text, problems));
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
            let to = prefix(place(&format!("routes/{number}/to")), &route.to, problems);
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
        interfaces.push(Interface {
            macs,
            bond,
            vlan,
            mtu,
            dhcp,
            addresses,
            gateways,
            nameservers,
            routes,
        });
    }
    Network { interfaces }
}

fn address(path: String, text: &str, problems: &mut Vec<Problem>) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        problems.push(problem(path, "address", format!("{text:?} is not an IP address")));
    }
    parsed
}

fn prefix(path: String, text: &str, problems: &mut Vec<Problem>) -> Option<(IpAddr, u8)> {
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
