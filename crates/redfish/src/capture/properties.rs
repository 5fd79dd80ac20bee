// SPDX-License-Identifier: AGPL-3.0-or-later
//! The meaning of a property by its name: standard names and the names that makers use for the same. Pure.

use super::names::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    Name(Kind),
    Secret,
    /// A location, a person, or text that a person wrote.
    Private,
    /// A version, whose numbers can look like an address.
    Version,
    /// Values that clients interpret, and that sometimes look like serial numbers.
    Technical,
    Other,
}

const SECRETS: &[&str] = &[
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "community",
    "passphrase",
    "credential",
    "apikey",
    "privatekey",
    "publickey",
    "accesskey",
    "hostkey",
    "sshkey",
    "authkey",
    "sharedkey",
    "licensekey",
    "activationkey",
    "encryptionkey",
    "protocolkey",
    "certificatestring",
    "csrstring",
    "fingerprint",
    "thumbprint",
    "cookie",
    "authorization",
    "signature",
];
/// Compared as whole names, because they occur within other names.
const SECRET_NAMES: &[&str] =
    &["pwd", "pass", "pin", "psk", "key", "sessionid", "csr", "hash", "pem", "salt", "bindpw"];
const PRIVATES: &[&str] = &[
    "postaladdress",
    "placement",
    "contact",
    "geolocation",
    "organization",
    "distinguishedname",
    "latitude",
    "longitude",
    "syslocation",
    "systemlocation",
    "physicallocation",
    "datacenter",
    "userlabel",
    "prettyname",
    "alternativename",
    "adminname",
    "phone",
    "otherinfo",
];
const PRIVATE_NAMES: &[&str] = &[
    "subject",
    "issuer",
    "building",
    "rack",
    "rackname",
    "room",
    "row",
    "site",
    "city",
    "street",
    "country",
    "comment",
    "comments",
    "note",
    "notes",
    "remark",
    "remarks",
    "nickname",
    "displayname",
    "loginbanner",
    "banner",
    "motd",
    "commonname",
    "customer",
    "customername",
    "assetowner",
];
const SERIALS: &[&str] = &[
    "serialnumber",
    "serialno",
    "serialnum",
    "servicetag",
    "svctag",
    "servicecode",
    "assettag",
    "asset_tag",
    "assetnumber",
    "durablename",
    "guid",
    "wwnn",
    "wwpn",
    "wwid",
    "worldwidename",
    "initiatorname",
    "serviceidentification",
    "customerid",
    "entitlement",
    "servicenumber",
    "propertytag",
];
const SERIAL_NAMES: &[&str] =
    &["sku", "nodeid", "wwn", "nodewwn", "portwwn", "iqn", "nqn", "ppid", "sn", "tag"];
const HOSTS: &[&str] = &[
    "hostname",
    "fqdn",
    "domainname",
    "dnsname",
    "nameserver",
    "dnsserver",
    "ntpserver",
    "servername",
    "systemname",
    "computername",
    "nodename",
    "machinename",
    "clustername",
    "racname",
    "searchdomain",
    "iloname",
    "bmcname",
];
const HOST_NAMES: &[&str] = &[
    "domain",
    "domains",
    "address",
    "gateway",
    "ipaddress",
    "hostaddress",
    "serveraddress",
    "destination",
    "smtpserver",
    "syslogserver",
    "server",
    "proxy",
    "realm",
];
const USER_NAMES: &[&str] = &[
    "user",
    "users",
    "owner",
    "createdby",
    "modifiedby",
    "updatedby",
    "login",
    "account",
    "accounts",
    "userid",
    "author",
    "person",
    "administrator",
    "admin",
];
const TECHNICALS: &[&str] = &[
    "model",
    "manufacturer",
    "vendor",
    "product",
    "partnumber",
    "type",
    "firmware",
    "capacity",
    "speed",
    "protocol",
    "mode",
    "state",
    "status",
    "health",
    "messageid",
    "odata",
];

/// The meaning of a property with this name.
pub fn property(name: &str) -> Property {
    // An annotation of a property is not the property itself.
    if let Some((_, about)) = name.split_once('@') {
        let is_standard = ["odata.", "Redfish."].iter().any(|own| about.starts_with(own));
        return if is_standard { Property::Technical } else { Property::Other };
    }
    let lower: String =
        name.to_ascii_lowercase().chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.')).collect();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let is = |words: &[&str]| words.contains(&lower.as_str());
    if has(SECRETS) || is(SECRET_NAMES) {
        return Property::Secret;
    }
    if has(PRIVATES) || is(PRIVATE_NAMES) {
        return Property::Private;
    }
    if ["version", "versions", "revision"].iter().any(|end| lower.ends_with(end)) {
        return Property::Version;
    }
    // Matches `BoardSN`, but not a word that ends in `sn`.
    let is_sn = name.ends_with("SN") || lower.ends_with("serial");
    if has(SERIALS) || is(SERIAL_NAMES) || is_sn {
        return Property::Name(Kind::Serial);
    }
    if lower.contains("uuid") {
        return Property::Name(Kind::Uuid);
    }
    let is_mac = lower.ends_with("mac") || lower.starts_with("macaddr");
    if has(&["macaddr", "permanentaddress", "hwaddr", "networkaddresses"]) || is_mac {
        return Property::Name(Kind::Mac);
    }
    if has(HOSTS) || is(HOST_NAMES) {
        return Property::Name(Kind::Host);
    }
    if has(&["username", "loginname", "accountname"]) || is(USER_NAMES) {
        return Property::Name(Kind::User);
    }
    if has(&["email", "mailto"]) {
        return Property::Name(Kind::Email);
    }
    match lower.as_str() {
        "image" | "httpbooturi" | "imageuri" | "imageurl" | "sharename" | "sharepath" => {
            Property::Name(Kind::Url)
        }
        "imagename" => Property::Name(Kind::File),
        _ if has(TECHNICALS) => Property::Technical,
        _ => Property::Other,
    }
}
