// SPDX-License-Identifier: AGPL-3.0-or-later
//! The names that identify a machine, and whether a BMC and a board belong to the same machine. The BMC and the
//! firmware report different names: a Dell's BMC gives the board's number as `SerialNumber`, its firmware the service
//! tag. So each side has a set of names. The controller and the machine both compare the two sets with this code.
//!
//! ```text
//! registered name ──▶ one of the BMC's names    (find)          at each discovery
//! BMC's names     ──▶ the board's names         (same_machine)  on the machine, and again before its permit
//! ```
//!
//! - If both sides report a UUID, it decides: a different UUID is a different machine. Some boards were given the
//!   same UUID in a batch, so if the UUIDs are equal, no other name may contradict.
//! - Without a UUID on both sides, at least one name must be common to both.
//! - Names that several machines share are shown and never compared: placeholders, product numbers, and the serial
//!   number of a chassis, which is the same for each of its blades.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{serial, uuid};

/// The kind of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SMBIOS type 1; `SerialNumber` of a Redfish system.
    Serial,
    /// Dell's service tag.
    ServiceTag,
    /// SMBIOS type 2.
    BoardSerial,
    /// SMBIOS type 1; `UUID` of a Redfish system.
    Uuid,
    /// The service tag that is encoded in a Dell's UUID. It identifies as well as the UUID, and adds nothing to it.
    UuidTag,
    /// SMBIOS type 3: the same for every blade of the chassis.
    ChassisSerial,
    /// `SKU`: the same for every machine of this model.
    Sku,
}

impl Kind {
    /// Whether a name of this kind belongs to one machine only.
    pub fn identifies(self) -> bool {
        match self {
            Kind::Serial | Kind::ServiceTag | Kind::BoardSerial | Kind::Uuid | Kind::UuidTag => {
                true
            }
            Kind::ChassisSerial | Kind::Sku => false,
        }
    }

    /// Whether the name contains no information beyond the UUID.
    fn is_of_uuid(self) -> bool {
        matches!(self, Kind::Uuid | Kind::UuidTag)
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Serial => "serial",
            Kind::ServiceTag => "service tag",
            Kind::BoardSerial => "board serial",
            Kind::Uuid => "UUID",
            Kind::UuidTag => "service tag in the UUID",
            Kind::ChassisSerial => "chassis serial",
            Kind::Sku => "SKU",
        }
    }
}

/// One name: never empty, and without spaces around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    pub kind: Kind,
    pub text: String,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {:?}", self.kind.words(), self.text)
    }
}

impl Name {
    /// Whether this name identifies one machine: its kind does, and it is not a placeholder.
    pub fn counts(&self) -> bool {
        match self.kind {
            Kind::Uuid => uuid::is_real(&self.text),
            kind => kind.identifies() && !serial::is_placeholder(&self.text),
        }
    }

    /// Whether the name equals this text: a UUID in either byte order, anything else letter by letter.
    fn is(&self, text: &str) -> bool {
        match self.kind {
            Kind::Uuid => uuid::are_same(&self.text, text),
            _ => self.text == text.trim(),
        }
    }
}

/// What a BMC reports about one system.
#[derive(Debug, Clone, Copy, Default)]
pub struct BmcFacts<'a> {
    pub serial: &'a str,
    pub sku: &'a str,
    pub uuid: &'a str,
    /// The maker gives the service tag as `SKU`, and the board's number as the serial number.
    pub sku_is_service_tag: bool,
    /// Service tags from other resources of the BMC.
    pub service_tags: &'a [String],
}

/// What the firmware reports to the machine's own kernel (SMBIOS types 1, 2 and 3).
#[derive(Debug, Clone, Copy, Default)]
pub struct BoardFacts<'a> {
    pub manufacturer: &'a str,
    pub serial: &'a str,
    pub sku: &'a str,
    pub uuid: &'a str,
    pub board_serial: &'a str,
    pub chassis_serial: &'a str,
}

/// The names of one machine as one side reports them, without duplicates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Names(Vec<Name>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no name");
        }
        f.write_str(&self.shown().join("; "))
    }
}

impl Names {
    pub fn of_bmc(facts: &BmcFacts) -> Names {
        let mut names = Names::default();
        let is_tag = facts.sku_is_service_tag && is_service_tag(facts.sku);
        names.add(if is_tag { Kind::BoardSerial } else { Kind::Serial }, facts.serial);
        names.add(if is_tag { Kind::ServiceTag } else { Kind::Sku }, facts.sku);
        for tag in facts.service_tags.iter().filter(|tag| is_service_tag(tag)) {
            names.add(Kind::ServiceTag, tag);
        }
        names.add_uuid(facts.uuid);
        names
    }

    pub fn of_board(facts: &BoardFacts) -> Names {
        let mut names = Names::default();
        let is_dell = facts.manufacturer.trim().to_ascii_lowercase().starts_with("dell");
        names.add(if is_dell { Kind::ServiceTag } else { Kind::Serial }, facts.serial);
        names.add(Kind::BoardSerial, facts.board_serial);
        if is_dell {
            // A board serial such as `.TAG.CN7475143I0143.`: Redfish has only the second part.
            for part in facts.board_serial.split('.').filter(|part| !is_service_tag(part)) {
                names.add(Kind::BoardSerial, part);
            }
        }
        names.add(Kind::ChassisSerial, facts.chassis_serial);
        names.add(Kind::Sku, facts.sku);
        names.add_uuid(facts.uuid);
        names
    }

    /// Names of a machine of which one name is known.
    pub fn of_name(text: &str) -> Names {
        let mut names = Names::default();
        names.add(if uuid::is_written_as_one(text) { Kind::Uuid } else { Kind::Serial }, text);
        names
    }

    /// The names as text for people.
    pub fn shown(&self) -> Vec<String> {
        let shown = self.0.iter().map(|name| match name.counts() {
            true => name.to_string(),
            false => format!("{name}, which does not count"),
        });
        shown.collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Finds the name that equals this text, if it identifies a machine.
    pub fn find(&self, text: &str) -> Option<&Name> {
        self.0.iter().find(|name| name.counts() && name.is(text))
    }

    fn uuid(&self) -> Option<&str> {
        let uuid = self.0.iter().find(|name| name.kind == Kind::Uuid && name.counts());
        uuid.map(|name| name.text.as_str())
    }

    fn has_serial(&self) -> bool {
        self.0.iter().any(|name| !name.kind.is_of_uuid() && name.counts())
    }

    /// Whether there is a system serial number or service tag beside the board's own number. If so, the board's number
    /// alone does not identify the machine.
    fn has_system_serial(&self) -> bool {
        let is_of_system = |kind| matches!(kind, Kind::Serial | Kind::ServiceTag);
        self.0.iter().any(|name| is_of_system(name.kind) && name.counts())
    }

    fn add(&mut self, kind: Kind, text: &str) {
        let text = text.trim();
        if !text.is_empty() && !self.0.iter().any(|name| name.kind == kind && name.text == text) {
            self.0.push(Name { kind, text: text.to_owned() });
        }
    }

    fn add_uuid(&mut self, text: &str) {
        if let Some(tag) = uuid::service_tag(text)
            && !self.0.iter().any(|name| name.text == tag)
        {
            self.add(Kind::UuidTag, &tag);
        }
        self.add(Kind::Uuid, text);
    }
}

/// Whether this looks like a Dell service tag: seven letters and digits, or five on old machines.
fn is_service_tag(text: &str) -> bool {
    let text = text.trim();
    (5..=7).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether a server can be registered by this name. Placeholders cannot: many machines share them.
pub fn can_register(text: &str) -> bool {
    Names::of_name(text).find(text).is_some()
}

/// The names that show that a BMC and a board belong to the same machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// `None` if the BMC reports nothing but its UUID, and the board has the server's registered name.
    pub of_bmc: Option<Name>,
    pub of_board: Name,
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.of_bmc {
            Some(name) => write!(f, "the BMC's {name} is the board's {}", self.of_board),
            None => write!(f, "the server's name is the board's {}", self.of_board),
        }
    }
}

/// Why a BMC and a board are not the same machine, or why this cannot be decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("{registered:?} is none of the BMC's names that count; it tells {bmc}")]
    NotTheBmcs { registered: String, bmc: Names },
    #[error(
        "this machine's UUID is {board}, its BMC says {bmc}: the BMC is another machine's, or two bear the \
         same name; if the BMC is known to tell a wrong UUID, set the server with --dangerously-ignore-uuid"
    )]
    OtherUuid { bmc: String, board: String },
    #[error(
        "this machine and its BMC have one UUID, but other serial numbers; if they are one machine all the \
         same, register the server by the UUID; the BMC tells {bmc}; the board tells {board}"
    )]
    OnlyUuid { bmc: Names, board: Names },
    #[error(
        "this machine's serial number is none of its BMC's, and no other name that counts is common to them; \
         the job is for {registered:?}; the BMC tells {bmc}; the board tells {board}"
    )]
    NothingInCommon { registered: String, bmc: Names, board: Names },
}

/// Whether the board with the names `board` belongs to the same machine as the BMC with the names `bmc`, for a server
/// registered as `registered`. `ignores_uuid`: the BMC is known to report a wrong UUID.
pub fn same_machine(
    registered: &str,
    bmc: &Names,
    board: &Names,
    ignores_uuid: bool,
) -> Result<Match, Mismatch> {
    let (bmc_uuid, board_uuid) = (bmc.uuid(), board.uuid());
    let of_bmc = bmc.find(registered);
    // A BMC that reports no serial cannot identify its machine: the board itself must have the registered name.
    let is_silent = !bmc.has_serial() && (bmc_uuid.is_none() || !uuid::is_real(registered));
    if of_bmc.is_none() && !is_silent {
        return Err(Mismatch::NotTheBmcs { registered: registered.into(), bmc: bmc.clone() });
    }
    if let (Some(bmc), Some(board), false) = (bmc_uuid, board_uuid, ignores_uuid)
        && !uuid::are_same(bmc, board)
    {
        return Err(Mismatch::OtherUuid { bmc: bmc.into(), board: board.into() });
    }
    let is_ignored = |name: &Name| ignores_uuid && name.kind.is_of_uuid();
    if let Some(of_board) = board.find(registered).filter(|name| !is_ignored(name)) {
        return Ok(Match { of_bmc: of_bmc.cloned(), of_board: of_board.clone() });
    }
    let nothing = || Mismatch::NothingInCommon {
        registered: registered.into(),
        bmc: bmc.clone(),
        board: board.clone(),
    };
    if of_bmc.is_none() {
        return Err(nothing());
    }
    let common = |wants_uuid: bool| {
        let names = bmc.iter().filter(move |name| name.counts() && !is_ignored(name));
        let mut names = names.filter(move |name| name.kind.is_of_uuid() == wants_uuid);
        names.find_map(|name| {
            let of_board = board.find(&name.text)?;
            // A name that the board has only from its UUID is not independent evidence.
            let is_weaker = of_board.kind.is_of_uuid() && !wants_uuid;
            let of_board = (!is_weaker).then(|| of_board.clone())?;
            Some(Match { of_bmc: Some(name.clone()), of_board })
        })
    };
    if let Some(found) = common(false) {
        return Ok(found);
    }
    match common(true) {
        Some(_) if bmc.has_system_serial() && board.has_system_serial() => {
            Err(Mismatch::OnlyUuid { bmc: bmc.clone(), board: board.clone() })
        }
        Some(found) => Ok(found),
        None => Err(nothing()),
    }
}

#[cfg(test)]
mod tests;
