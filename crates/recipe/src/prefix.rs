// SPDX-License-Identifier: AGPL-3.0-or-later
//! Networks as an address with a prefix length: which addresses are within, and which of them no host can have.

use std::net::IpAddr;

/// An address of the network, and the length of its prefix in bits.
pub type Prefix = (IpAddr, u8);

/// Whether the address is in the network.
pub fn contains((network, length): Prefix, address: IpAddr) -> bool {
    network.is_ipv4() == address.is_ipv4()
        && bits(network) & mask(network, length) == bits(address) & mask(network, length)
}

/// Why no host can have this address in any network. `None` if a host can.
pub fn refuses_host(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("means no address at all"),
        _ if address.is_loopback() => Some("is the machine itself (loopback)"),
        _ if address.is_multicast() => Some("is a group of machines (multicast)"),
        IpAddr::V4(four) if four.is_broadcast() => Some("is all machines (broadcast)"),
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in the form of IPv6; write it as IPv4")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Why no host can have this address in this IPv4 network: it is the network or broadcast address. Networks of one or
/// two addresses have neither (RFC 3021), nor does IPv6.
pub fn refuses_host_of((network, length): Prefix, address: IpAddr) -> Option<&'static str> {
    if !network.is_ipv4() || length > 30 || !contains((network, length), address) {
        return None;
    }
    let of_host = !mask(network, length);
    match bits(address) & of_host {
        0 => Some("is the network's own address, not a host's"),
        rest if rest == of_host => Some("is the network's broadcast address, not a host's"),
        _ => None,
    }
}

/// The address as a number, left-aligned.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(u32::from(four)) << 96,
        IpAddr::V6(six) => u128::from(six),
    }
}

/// A mask of ones for the prefix, and for the bits that an IPv4 address does not have.
fn mask(network: IpAddr, length: u8) -> u128 {
    let beyond = if network.is_ipv4() { u128::MAX >> 32 } else { 0 };
    let behind = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    !behind | beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        (address.parse().unwrap(), length.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_share_its_bits() {
        for (network, address, expected) in [
            ("192.0.2.10/24", "192.0.2.1", true),
            ("192.0.2.10/24", "192.0.3.1", false),
            ("10.0.2.15/32", "10.0.2.15", true),
            ("10.0.2.15/32", "10.0.2.2", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("192.0.2.0/31", "192.0.2.1", true),
            ("192.0.2.0/31", "192.0.2.2", false),
            ("2001:db8::1/64", "2001:db8::ff:1", true),
            ("2001:db8::1/64", "2001:db8:0:1::1", false),
            ("2001:db8::1/128", "2001:db8::2", false),
            ("2001:db8::/127", "2001:db8::1", true),
            ("::/0", "fe80::1", true),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(contains(prefix(network), address), expected, "{network} {address}");
        }
    }

    #[test]
    fn addresses_that_no_host_has_are_known() {
        for (network, address, word) in [
            ("192.0.2.10/24", "192.0.2.0", "own address"),
            ("192.0.2.10/24", "192.0.2.255", "broadcast"),
            ("192.0.2.10/24", "192.0.2.1", ""),
            ("192.0.2.10/24", "192.0.3.0", ""),
            ("192.0.2.5/30", "192.0.2.7", "broadcast"),
            ("192.0.2.5/31", "192.0.2.4", ""),
            ("192.0.2.5/32", "192.0.2.5", ""),
            ("2001:db8::1/64", "2001:db8::", ""),
        ] {
            let told = refuses_host_of(prefix(network), address.parse().unwrap());
            let told = told.unwrap_or_default();
            assert!(told.contains(word) && told.is_empty() == word.is_empty(), "{address}: {told}");
        }
        for (address, is_refused) in [
            ("0.0.0.0", true),
            ("::", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("224.0.0.1", true),
            ("ff02::1", true),
            ("255.255.255.255", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.0", false),
            ("fe80::1", false),
        ] {
            assert_eq!(refuses_host(address.parse().unwrap()).is_some(), is_refused, "{address}");
        }
    }
}
