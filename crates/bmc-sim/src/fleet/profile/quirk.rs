// SPDX-License-Identifier: AGPL-3.0-or-later
//! What a BMC does otherwise than the standard has it, each as one item that a profile lists. They
//! compose: no quirk knows another one, or a vendor. Sources are with the profiles that list them.

use std::time::Duration;

/// One difference from the standard. Durations are those of real hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    // Identity.
    /// Shows the machine's serial, the service tag, as SKU, and the board's as its serial.
    ServiceTag,
    /// Another system of the same BMC, first in the list.
    Beside(Beside),
    /// This member answers with this status while the machine is off.
    FailsWhileOff(Member, u16),
    /// The machine is off before anybody does anything.
    OffAtFirst,

    // Virtual media.
    /// Downloads the whole image before it responds; the machine reads the copy.
    CopiesMedia,
    /// The machine boots from the first slot only.
    BootsFirstSlotOnly,
    /// Slots do not say which media they take.
    NoMediaTypes,
    /// There is no slot until an action of the manager enables remote media.
    MediaDisabled,
    /// An occupied slot offers `EjectMedia` after this time and `InsertMedia` no more; an empty one
    /// offers `InsertMedia` only. What is not offered is refused.
    EjectAppears(Duration),
    /// The slots' actions are below `Oem` and have other names (HP iLO 4).
    OemActions,
    /// After an eject the slot still shows the image that was in it.
    ImageStays,
    /// Somebody's medium is in the slot of this number.
    ForeignMedium(usize),

    // Boot override and power.
    /// The firmware downloads what `HttpBootUri` names (UEFI HTTP boot).
    HttpBoot,
    /// Somebody has set this override before: enabled, target and mode.
    OverrideBefore(&'static str, &'static str, &'static str),
    /// Targets are listed as `BootSourceOverrideSupported`, as in Redfish 1.0 drafts.
    TargetsAsSupported,
    /// Refuses to change the override for so long after each power-on.
    RefusesInPost(Duration),

    // Sessions.
    SessionsMax(usize),
    Location(Location),

    // The wire.
    /// Links end in a slash; a path without it is redirected with 308.
    LinksEndInSlash,
    /// Compresses every other resource, whatever the client accepts.
    Gzip,
    /// The system has a byte that is not UTF-8 in its asset tag and its host name.
    OddBytes,
    /// A zero byte follows each document.
    TrailingNul,
    /// A successful action has a body that is not JSON.
    ActionsSayText,
    Errors(Errors),
    Certificate(Certificate),

    // Firmware updates.
    /// No firmware can be pushed (`MultipartHttpPushUri`).
    NoPush,
}

/// A second member of `Systems`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// A sound system with a serial and a UUID of its own.
    Node,
    /// A sound system with the same serial and another UUID.
    Twin,
    /// A tray of GPUs: no serial, no `Reset`, no boot override.
    Baseboard,
    /// It always responds with this status.
    Failing(u16),
}

/// What can fail alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A manager beside the BMC's own.
    Manager,
    /// A slot that would take no URL anyway.
    LocalSlots,
}

/// Where a client finds the path of its new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In a URL with a host that is not the one of the request.
    OtherHost,
    /// In the body; there is no header.
    BodyOnly,
    /// Relative to the request's path.
    Relative,
}

/// What an error looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// `MessageId` and `MessageArgs` without a `Message`.
    MessageIds,
    /// `@Message.ExtendedInfo` is one object, not a list.
    InfoObject,
    /// A page for people.
    Html,
}

/// What the BMC identifies itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// X.509 version 1: no extensions, so no names.
    V1,
}
