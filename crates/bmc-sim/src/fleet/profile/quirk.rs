// SPDX-License-Identifier: AGPL-3.0-or-later
//! The differences from the standard, each as one item that a profile lists. They can be combined: no quirk depends on
//! another one, or on a vendor. The sources are in the profiles.

use std::time::Duration;

/// One difference from the standard. Durations are those of real hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quirk {
    // Identity.
    /// Shows the machine's serial (the service tag) as SKU, and the board's as its serial.
    ServiceTag,
    /// The BMC has another system, first in the list.
    Beside(Beside),
    /// This member responds with this status while the machine is off.
    FailsWhileOff(Member, u16),
    /// The machine is off before a job begins.
    OffAtFirst,

    // Virtual media.
    /// Downloads the whole image before it responds. The machine reads the copy.
    CopiesMedia,
    /// The machine boots from the first slot only.
    BootsFirstSlotOnly,
    /// Slots do not list the media types that they accept.
    NoMediaTypes,
    /// There are no slots until an action of the manager enables remote media.
    MediaDisabled,
    /// An occupied slot offers `EjectMedia` only after this time, and `InsertMedia` not at all. An empty slot
    /// offers only `InsertMedia`. An action that is not offered is rejected.
    EjectAppears(Duration),
    /// The slots' actions are below `Oem` and have other names (HP iLO 4).
    OemActions,
    /// After an eject the slot still shows the image that was in it.
    ImageStays,
    /// The slot with this number contains a foreign medium.
    ForeignMedium(usize),

    // Boot override and power.
    /// The firmware downloads what `HttpBootUri` names (UEFI HTTP boot).
    HttpBoot,
    /// Somebody else has set this override: enabled, target and mode.
    OverrideBefore(&'static str, &'static str, &'static str),
    /// Targets are listed as `BootSourceOverrideSupported`, as in Redfish 1.0 drafts.
    TargetsAsSupported,
    /// Rejects changes of the override for this long after each power-on.
    RefusesInPost(Duration),

    // Sessions.
    SessionsMax(usize),
    Location(Location),

    // The wire.
    /// Links end in a slash. A path without the slash is redirected with 308.
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
    /// Firmware cannot be pushed (`MultipartHttpPushUri`).
    NoPush,
}

/// A second member of `Systems`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// A working system with its own serial and UUID.
    Node,
    /// A working system with the same serial and another UUID.
    Twin,
    /// A tray of GPUs: no serial, no `Reset`, no boot override.
    Baseboard,
    /// It always responds with this status.
    Failing(u16),
}

/// A resource that can fail while the others work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A manager beside the BMC's own.
    Manager,
    /// Slots that do not accept URLs in any case.
    LocalSlots,
}

/// The place of a new session's path in the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In a URL whose host is not that of the request.
    OtherHost,
    /// In the body, without a header.
    BodyOnly,
    /// Relative to the request's path.
    Relative,
}

/// The form of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// `MessageId` and `MessageArgs` without a `Message`.
    MessageIds,
    /// `@Message.ExtendedInfo` is one object, not a list.
    InfoObject,
    /// An HTML page.
    Html,
}

/// The kind of the BMC's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// X.509 version 1: no extensions, so no names.
    V1,
}
