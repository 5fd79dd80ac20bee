// SPDX-License-Identifier: AGPL-3.0-or-later
//! The closed set of steps.

/// One step: the work of one tool container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    ImageCheck,
    Partition,
    ImageLinux,
    BootloaderLinux,
    ConfigDrive,
}

impl Step {
    /// All steps, in the order in which a machine runs them.
    pub const ALL: [Step; 5] = [
        Step::ImageCheck,
        Step::Partition,
        Step::ImageLinux,
        Step::BootloaderLinux,
        Step::ConfigDrive,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Step::ImageCheck => "image-check",
            Step::Partition => "partition",
            Step::ImageLinux => "image-linux",
            Step::BootloaderLinux => "bootloader-linux",
            Step::ConfigDrive => "config-drive",
        }
    }

    pub fn parse(name: &str) -> Option<Step> {
        Step::ALL.into_iter().find(|step| step.name() == name)
    }

    /// The unit that runs it.
    pub fn unit(self) -> String {
        format!("{}.service", self.name())
    }
}
