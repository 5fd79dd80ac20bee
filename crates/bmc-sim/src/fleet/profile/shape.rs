// SPDX-License-Identifier: AGPL-3.0-or-later
//! The parts that every profile has: how a BMC names itself, its slots, its boot override. Shapes of
//! the standard are constants here, for the makers' files to start from.

/// How a BMC names itself; an empty text is not shown.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// `Vendor` and `Product` of the service root, and the name of its `Oem` object.
    pub vendor: &'static str,
    pub product: &'static str,
    pub oem: &'static str,
    /// `Model` and `FirmwareVersion` of the manager.
    pub manager_model: &'static str,
    pub firmware: &'static str,
}

/// Which resource has the virtual media: the system since Redfish 2020.4, the manager before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    System,
    Manager,
}

/// One virtual media slot.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    pub id: &'static str,
    pub media: &'static [&'static str],
    pub takes: Takes,
}

/// What a slot can be filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Urls,
    /// A viewer's own media.
    ViewersMedia,
    /// Files that were uploaded to the BMC.
    Uploads,
}

/// How a medium is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// `InsertMedia`, and which properties beside `Image` it refuses or demands.
    Action { refuses: &'static [&'static str], demands: &'static [&'static str] },
    /// As `Action`, but the response is a task.
    Task,
    /// No action: PATCH of the slot, with its ETag.
    Patch,
}

/// Which body `EjectMedia` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eject {
    NoBody,
    EmptyObject,
    Any,
}

/// How the boot override is set.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    pub targets: &'static [&'static str],
    pub is_mode_known: bool,
    /// PATCH without `If-Match` is refused.
    pub needs_etag: bool,
    pub written_to: WrittenTo,
    /// Refused unless target and enabled come together with the mode.
    pub needs_all: bool,
}

/// Which resource takes the override.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenTo {
    System,
    /// A resource of its own below the system (`@Redfish.Settings`); the system refuses the PATCH.
    Settings(&'static str),
    /// Likewise, but the system accepts the PATCH and nothing follows.
    SettingsSilently(&'static str),
}

impl WrittenTo {
    /// What follows the system's path.
    pub fn suffix(self) -> &'static str {
        match self {
            WrittenTo::System => "",
            WrittenTo::Settings(suffix) | WrittenTo::SettingsSilently(suffix) => suffix,
        }
    }
}

pub(super) const CD: &[&str] = &["CD", "DVD"];
pub(super) const DISK: &[&str] = &["Floppy", "USBStick"];
pub(super) const STICK: &[&str] = &["USBStick"];
pub(super) const ALL_KINDS: &[&str] = &["CD", "DVD", "USBStick"];

pub(super) const fn remote(id: &'static str, media: &'static [&'static str]) -> Slot {
    Slot { id, media, takes: Takes::Urls }
}

pub(super) const fn local(id: &'static str, media: &'static [&'static str]) -> Slot {
    Slot { id, media, takes: Takes::ViewersMedia }
}

pub(super) const fn uploads(id: &'static str, media: &'static [&'static str]) -> Slot {
    Slot { id, media, takes: Takes::Uploads }
}

pub(super) const UNTOLD: Told =
    Told { vendor: "", product: "", oem: "", manager_model: "", firmware: "" };
pub(super) const PLAIN: Insert = Insert::Action { refuses: &[], demands: &[] };
pub(super) const IMAGE_ONLY: Insert = Insert::Action {
    refuses: &["Inserted", "WriteProtected", "TransferProtocolType", "TransferMethod"],
    demands: &[],
};
pub(super) const STANDARD_BOOT: Boot = Boot {
    targets: &["None", "Pxe", "Hdd", "Cd", "Usb", "BiosSetup"],
    is_mode_known: true,
    needs_etag: false,
    written_to: WrittenTo::System,
    needs_all: false,
};
pub(super) const USB_CD_BOOT: Boot =
    Boot { targets: &["None", "Pxe", "Hdd", "UsbCd", "BiosSetup"], ..STANDARD_BOOT };
pub(super) const RESETS: &[&str] =
    &["On", "ForceOff", "GracefulShutdown", "ForceRestart", "PushPowerButton"];
