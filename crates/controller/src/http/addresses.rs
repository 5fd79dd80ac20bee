// SPDX-License-Identifier: AGPL-3.0-or-later
//! Addresses that the controller must not be made to connect to, in every notation. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Host;

/// Metadata services, which hand out the credentials of cloud machines. In this order: every large cloud, AWS
/// containers (two), Azure, Alibaba.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
];
/// The same over IPv6: AWS (docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html) and its
/// containers, Google, OpenStack.
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// Returns why this address cannot be a BMC's, if the controller must not be made to connect to it. Few addresses are
/// rejected: BMCs live in private networks, simulated BMCs on loopback, and the BMC of the controller's own host may
/// have a link-local address. A name is not resolved here; the host behind it must present the expected certificate.
pub fn never_a_bmc(host: Host<&str>) -> Option<&'static str> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => never_v4(address),
        // An IPv4-mapped address (RFC 4291, 2.5.5.2).
        Host::Ipv6(address) if let Some(mapped) = address.to_ipv4_mapped() => never_v4(mapped),
        Host::Ipv6(address) => {
            never_v6(address).or_else(|| embedded(address).into_iter().find_map(never_within))
        }
    }
}

fn never_v4(address: Ipv4Addr) -> Option<&'static str> {
    never(address.into(), METADATA_V4.contains(&address))
}

fn never_v6(address: Ipv6Addr) -> Option<&'static str> {
    never(address.into(), METADATA_V6.contains(&address))
}

fn never(address: IpAddr, is_metadata: bool) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("this address stands for every address")
    } else if address.is_multicast() {
        Some("this is a multicast address")
    } else if is_metadata {
        Some("this is a cloud's metadata service")
    } else {
        None
    }
}

/// Checks an IPv4 address embedded in an IPv6 address. Rejects loopback and link-local addresses too: the only reason
/// to reach them through a translator is to bypass a check.
fn never_within(address: Ipv4Addr) -> Option<&'static str> {
    let is_here = address.is_loopback() || address.is_link_local();
    never_v4(address)
        .or(is_here.then_some("this leads to a loopback or link-local address by a translator"))
}

/// The IPv4 addresses to which a translator or a tunnel may map an IPv6 address. Several, where their position
/// depends on a prefix length that only the network knows; none for plain IPv6.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let last = at([12, 13, 14, 15]);
    match address.segments() {
        // IPv4-translated (RFC 2765, 2.1).
        [0, 0, 0, 0, 0xffff, 0, _, _] => vec![last],
        // IPv4-compatible (RFC 4291, 2.5.5.1). `::` and `::1` are not of this form.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![],
        [0, 0, 0, 0, 0, 0, _, _] => vec![last],
        // NAT64's well-known prefix (RFC 6052, 2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => vec![last],
        // NAT64's local prefixes (RFC 8215), of /48 to /96: octet 8 is zero in all of them (RFC 6052, 2.2).
        [0x64, 0xff9b, 1, ..] => {
            let shorter = [at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12])];
            // A longer prefix has zeros in these positions.
            shorter.into_iter().filter(|v4| !v4.is_unspecified()).chain([last]).collect()
        }
        // 6to4 (RFC 3056, 2).
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // Teredo (RFC 4380, 4): the server, and the client with every bit inverted.
        [0x2001, 0, ..] => {
            vec![at([4, 5, 6, 7]), Ipv4Addr::from(last.octets().map(|octet| !octet))]
        }
        // ISATAP (RFC 5214, 6.1), behind any prefix.
        [_, _, _, _, 0 | 0x0200, 0x5efe, _, _] => vec![last],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Option<&'static str> {
        let url: url::Url = format!("https://{text}/").parse().unwrap();
        never_a_bmc(url.host().unwrap())
    }

    #[test]
    fn no_form_of_an_address_that_no_bmc_has_is_taken() {
        const METADATA: &str = "this is a cloud's metadata service";
        const EVERY: &str = "this address stands for every address";
        const MULTICAST: &str = "this is a multicast address";
        const HERE: &str = "this leads to a loopback or link-local address by a translator";
        for (text, why) in [
            ("169.254.169.254", METADATA),
            ("0xa9fea9fe", METADATA),
            ("2852039166", METADATA),
            ("0251.0376.0251.0376", METADATA),
            ("169.254.43518", METADATA),
            ("100.100.100.200", METADATA),
            ("168.63.129.16", METADATA),
            ("169.254.170.2", METADATA),
            ("[fd00:ec2::254]", METADATA),
            ("[fd20:ce::254]", METADATA),
            ("[fe80::a9fe:a9fe]", METADATA),
            // Mapped, translated, compatible.
            ("[::ffff:169.254.169.254]", METADATA),
            ("[::ffff:0:169.254.169.254]", METADATA),
            ("[::169.254.169.254]", METADATA),
            // NAT64: well-known, and local of /48, /56, /64 and /96.
            ("[64:ff9b::169.254.169.254]", METADATA),
            ("[64:ff9b:1:a9fe:00a9:fe00::]", METADATA),
            ("[64:ff9b:1:ffa9:00fe:a9fe::]", METADATA),
            ("[64:ff9b:1:ffff:00a9:fea9:fe00:0]", METADATA),
            ("[64:ff9b:1::169.254.169.254]", METADATA),
            // 6to4, Teredo's server and client, ISATAP.
            ("[2002:a9fe:a9fe::1]", METADATA),
            ("[2001:0:a9fe:a9fe::1]", METADATA),
            ("[2001:0:4136:e378:8000:63bf:5601:5601]", METADATA),
            ("[2001:db8::5efe:169.254.169.254]", METADATA),
            ("[fe80::200:5efe:169.254.169.254]", METADATA),
            ("[64:ff9b::127.0.0.1]", HERE),
            ("[64:ff9b::169.254.1.1]", HERE),
            ("[2002:7f00:1::]", HERE),
            ("[::127.0.0.1]", HERE),
            ("0.0.0.0", EVERY),
            ("[::]", EVERY),
            ("[::ffff:0.0.0.0]", EVERY),
            ("[64:ff9b::]", EVERY),
            ("224.0.0.1", MULTICAST),
            ("[ff02::1]", MULTICAST),
            ("[64:ff9b::224.0.0.1]", MULTICAST),
        ] {
            assert_eq!(judged(text), Some(why), "{text}");
        }
        for text in [
            "192.0.2.1",
            "10.0.0.5",
            "127.0.0.1",
            "169.254.1.1",
            "[::1]",
            "[2001:db8::1]",
            "[fe80::1]",
            "[fd12::254]",
            "[64:ff9b::192.0.2.1]",
            "[2002:c000:201::1]",
            "[::ffff:10.0.0.5]",
            "[::ffff:127.0.0.1]",
            "[64:ff9b:1::192.0.2.1]",
            "[2001:db8:0:1::a9fe:a9fe]",
            "bmc.example.org",
        ] {
            assert_eq!(judged(text), None, "{text}");
        }
    }
}
