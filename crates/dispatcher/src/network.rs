// SPDX-License-Identifier: AGPL-3.0-or-later
//! The recipe's network as systemd-networkd files (systemd.network(5), systemd.netdev(5)).
//!
//! ```text
//! MAC ──────────────▶ addresses            one interface
//! MAC, MAC ─▶ bond0 ─▶ addresses           a bond
//! either ───▶ .VLAN ─▶ addresses           a VLAN on top
//! ```

use std::fmt::Write;
use std::net::IpAddr;

use recipe::{File, Interface, Network};

/// All files. Their names sort before those of the image.
pub fn files(network: &Network) -> Vec<File> {
    network.interfaces.iter().enumerate().flat_map(|(index, one)| interface(index, one)).collect()
}

fn interface(index: usize, one: &Interface) -> Vec<File> {
    let mut files = Vec::new();
    let mut put = |name: String, text: String| {
        files.push(File { name, bytes: text.into_bytes() });
    };
    let vlan = one.vlan.map(|id| (id, format!("shoal{index}v{id}")));
    let above = |text: &mut String| match &vlan {
        // The addresses are on the VLAN; the link below only carries it.
        Some((_, name)) => {
            let _ = write!(text, "\n[Network]\nVLAN={name}\nLinkLocalAddressing=no\n");
        }
        None => text.push_str(&addresses(one)),
    };
    match one.bond {
        Some(mode) => {
            let bond = format!("shoal{index}b");
            put(
                format!("10-shoal{index}-bond.netdev"),
                format!(
                    "[NetDev]\nName={bond}\nKind=bond\n\n[Bond]\nMode={}\nMIIMonitorSec=0.1\n",
                    mode.name()
                ),
            );
            let members = format!(
                "[Match]\nPermanentMACAddress={}\n{}\n[Network]\nBond={bond}\n",
                one.macs.join(" "),
                mtu(one)
            );
            put(format!("10-shoal{index}-members.network"), members);
            let mut text = format!("[Match]\nName={bond}\n{}", mtu(one));
            above(&mut text);
            put(format!("10-shoal{index}-bond.network"), text);
        }
        None => {
            let macs = one.macs.join(" ");
            let mut text = format!("[Match]\nPermanentMACAddress={macs}\n{}", mtu(one));
            above(&mut text);
            put(format!("10-shoal{index}.network"), text);
        }
    }
    if let Some((id, name)) = &vlan {
        put(
            format!("10-shoal{index}-vlan.netdev"),
            format!("[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={id}\n"),
        );
        let text = format!("[Match]\nName={name}\n{}{}", mtu(one), addresses(one));
        put(format!("10-shoal{index}-vlan.network"), text);
    }
    files
}

fn mtu(one: &Interface) -> String {
    one.mtu.map(|bytes| format!("\n[Link]\nMTUBytes={bytes}\n")).unwrap_or_default()
}

fn addresses(one: &Interface) -> String {
    let mut text = String::from("\n[Network]\n");
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key}={value}");
    };
    line("DHCP", if one.dhcp { "yes" } else { "no" }.into());
    line("IPv6AcceptRA", if one.dhcp { "yes" } else { "no" }.into());
    for (address, length) in &one.addresses {
        line("Address", format!("{address}/{length}"));
    }
    let (beyond, within): (Vec<IpAddr>, Vec<IpAddr>) =
        one.gateways.iter().partition(|gateway| one.is_beyond_prefixes(**gateway));
    for gateway in within {
        line("Gateway", gateway.to_string());
    }
    for server in &one.nameservers {
        line("DNS", server.to_string());
    }
    for gateway in beyond {
        // Without a destination it is the default route of the gateway's family.
        let _ = write!(text, "\n[Route]\nGateway={gateway}\nGatewayOnLink=yes\n");
    }
    for route in &one.routes {
        let (address, length) = route.to;
        let _ = write!(text, "\n[Route]\nDestination={address}/{length}\nGateway={}\n", route.via);
        if one.is_beyond_prefixes(route.via) {
            text.push_str("GatewayOnLink=yes\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use recipe::{Bond, Route};

    use super::*;

    fn plain() -> Interface {
        Interface {
            macs: vec!["52:54:00:12:34:56".into()],
            bond: None,
            vlan: None,
            mtu: None,
            dhcp: false,
            addresses: vec![("192.0.2.10".parse().unwrap(), 24)],
            gateways: vec!["192.0.2.1".parse().unwrap()],
            nameservers: vec!["192.0.2.53".parse().unwrap()],
            routes: Vec::new(),
        }
    }

    fn text(one: Interface) -> String {
        let files = files(&Network { interfaces: vec![one] });
        files
            .iter()
            .map(|file| format!("# {}\n{}", file.name, String::from_utf8_lossy(&file.bytes)))
            .collect()
    }

    #[test]
    fn a_static_address_is_set_by_mac() {
        assert_eq!(
            text(plain()),
            "# 10-shoal0.network\n[Match]\nPermanentMACAddress=52:54:00:12:34:56\n\n\
             [Network]\nDHCP=no\nIPv6AcceptRA=no\nAddress=192.0.2.10/24\nGateway=192.0.2.1\n\
             DNS=192.0.2.53\n"
        );
    }

    #[test]
    fn a_gateway_that_no_prefix_has_is_reached_on_the_link() {
        let one = |addresses: &[&str], gateways: &[&str], via: &str| {
            let mut one = plain();
            let prefix = |text: &&str| {
                let (address, length) = text.split_once('/').unwrap();
                (address.parse().unwrap(), length.parse().unwrap())
            };
            one.addresses = addresses.iter().map(prefix).collect();
            one.gateways = gateways.iter().map(|gateway| gateway.parse().unwrap()).collect();
            one.nameservers.clear();
            let to = ("198.51.100.0".parse().unwrap(), 24);
            one.routes = (!via.is_empty())
                .then(|| Route { to, via: via.parse().unwrap() })
                .into_iter()
                .collect();
            let text = text(one);
            text.split_once("IPv6AcceptRA=no\n").unwrap().1.to_owned()
        };
        for (addresses, gateways, via, expected) in [
            (
                &["10.0.2.15/32"][..],
                &["10.0.2.2"][..],
                "10.0.2.3",
                "Address=10.0.2.15/32\n\n[Route]\nGateway=10.0.2.2\nGatewayOnLink=yes\n\n\
                 [Route]\nDestination=198.51.100.0/24\nGateway=10.0.2.3\nGatewayOnLink=yes\n",
            ),
            // A second address whose prefix contains it.
            (
                &["10.0.2.15/32", "10.0.2.16/24"],
                &["10.0.2.2"],
                "",
                "Address=10.0.2.15/32\nAddress=10.0.2.16/24\nGateway=10.0.2.2\n",
            ),
            (&["192.0.2.1/31"], &["192.0.2.0"], "", "Address=192.0.2.1/31\nGateway=192.0.2.0\n"),
            (
                &["2001:db8:0:ff::1/64", "192.0.2.9/24"],
                &["2001:db8:0:1::1", "192.0.2.1"],
                "",
                "Address=2001:db8:0:ff::1/64\nAddress=192.0.2.9/24\nGateway=192.0.2.1\n\n\
                 [Route]\nGateway=2001:db8:0:1::1\nGatewayOnLink=yes\n",
            ),
            // A link-local gateway: the kernel knows its link, because there is only one.
            (&["2001:db8::5/128"], &["fe80::1"], "", "Address=2001:db8::5/128\nGateway=fe80::1\n"),
        ] {
            assert_eq!(one(addresses, gateways, via), expected, "{addresses:?} by {gateways:?}");
        }
    }

    #[test]
    fn a_vlan_on_a_bond_has_the_addresses_and_the_links_below_none() {
        let mut one = plain();
        one.macs.push("52:54:00:12:34:57".into());
        one.bond = Some(Bond::Lacp);
        one.vlan = Some(7);
        one.mtu = Some(9000);
        let via = "192.0.2.254".parse().unwrap();
        one.routes.push(Route { to: ("198.51.100.0".parse().unwrap(), 24), via });
        assert_eq!(
            text(one),
            "# 10-shoal0-bond.netdev\n[NetDev]\nName=shoal0b\nKind=bond\n\n\
             [Bond]\nMode=802.3ad\nMIIMonitorSec=0.1\n\
             # 10-shoal0-members.network\n[Match]\n\
             PermanentMACAddress=52:54:00:12:34:56 52:54:00:12:34:57\n\n[Link]\nMTUBytes=9000\n\n\
             [Network]\nBond=shoal0b\n\
             # 10-shoal0-bond.network\n[Match]\nName=shoal0b\n\n[Link]\nMTUBytes=9000\n\n\
             [Network]\nVLAN=shoal0v7\nLinkLocalAddressing=no\n\
             # 10-shoal0-vlan.netdev\n[NetDev]\nName=shoal0v7\nKind=vlan\n\n[VLAN]\nId=7\n\
             # 10-shoal0-vlan.network\n[Match]\nName=shoal0v7\n\n[Link]\nMTUBytes=9000\n\n\
             [Network]\nDHCP=no\nIPv6AcceptRA=no\nAddress=192.0.2.10/24\nGateway=192.0.2.1\n\
             DNS=192.0.2.53\n\n[Route]\nDestination=198.51.100.0/24\nGateway=192.0.2.254\n"
        );
    }
}
