// SPDX-License-Identifier: AGPL-3.0-or-later
//! The parts of every profile: the names of a BMC, its slots, its boot override. The forms of the standard are
//! constants here, and the makers' files start from them.

/// The names of a BMC. An empty text is not shown.
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

/// The resource with the virtual media: the system since Redfish 2020.4, the manager before.
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

/// What can be inserted into a slot.
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
    /// `InsertMedia`, with the properties beside `Image` that it rejects or requires.
    Action { refuses: &'static [&'static str], demands: &'static [&'static str] },
    /// As `Action`, but the response is a task.
    Task,
    /// No action: PATCH of the slot, with its ETag.
    Patch,
}

/// The body that `EjectMedia` requires.
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
    /// A change is rejected unless target and enabled come together with the mode.
    pub needs_all: bool,
}

/// The resource that accepts the override.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenTo {
    System,
    /// A resource below the system (`@Redfish.Settings`). The system rejects the PATCH.
    Settings(&'static str),
    /// The same, but the system accepts the PATCH without effect.
    SettingsSilently(&'static str),
}

impl WrittenTo {
    /// The part that is appended to the system's path.
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
