// SPDX-License-Identifier: AGPL-3.0-or-later
//! The faults of a BMC or its machine. Each has a name, the step at which it strikes, and the result that a
//! correct controller reports.

use super::profile::quirk::{Errors, Quirk};
use super::profile::{Insert, PLANS_DONE, Plan, Profile};

/// The step of a job at which a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Discover,
    Insert,
    Override,
    Reset,
    Boot,
    Node,
    Cleanup,
    /// Not in a job, but in a firmware update.
    Update,
}

/// The result that a job on such a machine must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Succeeds,
    /// It succeeds, and reports with this step what it could not put back.
    SucceedsWithProblem(&'static str),
    /// It fails, and `failed_step` begins with this.
    Fails(&'static str),
}

const DISCOVER: Expected = Expected::Fails("redfish.discover");
const MOUNT: Expected = Expected::Fails("redfish.mount");
const NO_READ: Expected = Expected::Fails("boot.no-media-read");
const NO_KERNEL: Expected = Expected::Fails("boot.no-kernel");
const SILENCE: Expected = Expected::Fails("webhook.wait");

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident, $name:literal, $step:ident, $expected:expr;)*) => {
        /// One fault of a BMC or its machine.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$fault,)*];

            pub fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name,)* }
            }

            pub fn step(self) -> Step {
                match self { $(Fault::$fault => Step::$step,)* }
            }

            /// On a BMC that the controller can otherwise use.
            fn expected(self) -> Expected {
                match self { $(Fault::$fault => $expected,)* }
            }
        }
    };
}

faults! {
    None, "none", Discover, Expected::Succeeds;

    /// Accepts the request and never responds.
    Hang, "hang", Discover, DISCOVER;
    /// Sends one byte at a time, for ever.
    Drip, "drip", Discover, DISCOVER;
    /// Closes the connection in the middle of each body.
    HalfClose, "half-close", Discover, DISCOVER;
    Unavailable, "unavailable", Discover, DISCOVER;
    RetryAfterSeconds, "retry-after-seconds", Discover, Expected::Succeeds;
    RetryAfterDate, "retry-after-date", Discover, Expected::Succeeds;
    RetryAfterNonsense, "retry-after-nonsense", Discover, Expected::Succeeds;
    /// Always gives tomorrow as the time to retry.
    RetryAfterForever, "retry-after-forever", Discover, DISCOVER;
    BadLogin, "bad-login", Discover, DISCOVER;
    /// Creates sessions, and then does not accept them.
    UnauthorizedStorm, "401-storm", Discover, DISCOVER;
    /// Loses the session once.
    SessionLost, "session-lost", Discover, Expected::Succeeds;
    MaxSessions, "max-sessions", Discover, DISCOVER;
    /// All sessions are in use for a while.
    SessionsBusy, "sessions-busy", Discover, Expected::Succeeds;
    CertSwap, "cert-swap", Discover, DISCOVER;
    HugeJson, "huge-json", Discover, DISCOVER;
    DeepJson, "deep-json", Discover, DISCOVER;
    NotJson, "not-json", Discover, DISCOVER;
    /// Besides the true member, the collection has members that are links to itself.
    LoopingLinks, "looping-links", Discover, Expected::Succeeds;
    ForeignLink, "foreign-link", Discover, DISCOVER;
    Redirect, "redirect", Discover, DISCOVER;
    WrongMachine, "wrong-machine", Discover, DISCOVER;
    RebootAtDiscover, "bmc-reboot-at-discover", Discover, Expected::Succeeds;

    NoSlots, "no-slots", Insert, MOUNT;
    NoLicence, "no-licence", Insert, MOUNT;
    HangInsert, "hang-insert", Insert, MOUNT;
    LieInsert, "lie-insert", Insert, MOUNT;
    /// Every slot shows a foreign medium. A client cannot see that it is long gone.
    StaleInserted, "stale-inserted", Insert, MOUNT;
    /// The same, and the job permits ejecting foreign media.
    StaleEjected, "stale-ejected", Insert, Expected::Succeeds;
    TaskVanish, "task-vanish", Insert, Expected::Succeeds;
    TaskSlow, "task-slow", Insert, Expected::Succeeds;
    TaskFail, "task-fail", Insert, MOUNT;
    /// Responds with 400 while it still works on the previous insert.
    InsertBusy, "insert-busy", Insert, Expected::Succeeds;
    InsertRefused, "insert-refused", Insert, MOUNT;
    /// Restarts after an insert, and loses its media.
    RebootAtInsert, "bmc-reboot-at-insert", Insert, Expected::Succeeds;
    /// The same, and afterwards its slots have other ids.
    IdsChange, "ids-change", Insert, Expected::Succeeds;

    LieBoot, "lie-boot", Override, Expected::Fails("redfish.boot-override");
    BootRefused, "boot-refused", Override, Expected::Fails("redfish.boot-override");
    RebootAtOverride, "bmc-reboot-at-override", Override, Expected::Succeeds;

    LieReset, "lie-reset", Reset, Expected::Fails("redfish.reset");
    ResetRefused, "reset-refused", Reset, Expected::Fails("redfish.reset");
    PowerStuckOn, "power-stuck-on", Reset, Expected::Fails("redfish.reset");
    RebootAtReset, "bmc-reboot-at-reset", Reset, Expected::Succeeds;
    /// Loses its media at power-on.
    DropsMediaAtReset, "drops-media-at-reset", Boot, NO_READ;

    OverrideIgnored, "override-ignored", Boot, NO_READ;
    OverrideNotConsumed, "override-not-consumed", Boot, Expected::Succeeds;
    NeverReadsMedia, "never-reads-media", Boot, NO_READ;
    OnlyProbes, "only-probes", Boot, NO_READ;
    StopsAtFirmware, "stops-at-firmware", Boot, NO_KERNEL;
    StopsAtBootLoader, "stops-at-boot-loader", Boot, NO_KERNEL;
    StopsAtKernel, "stops-at-kernel", Boot, NO_KERNEL;
    StopsAtInitrd, "stops-at-initrd", Boot, NO_KERNEL;
    NoTaskMedium, "no-task-medium", Boot, Expected::Fails("boot.no-task-medium");
    NoNetwork, "no-network", Boot, Expected::Fails("boot.no-network");
    /// Looks for its task, finds none, and signals this by what it reads.
    TaskNotFound, "task-not-found", Boot, Expected::Fails("boot.no-task-medium");
    /// Its task medium is not the one that the controller made, which it signals in the same way.
    TaskForged, "task-forged", Boot, Expected::Fails("boot.no-task-medium");
    /// Has no link, which it signals in the same way.
    NoLink, "no-link", Boot, Expected::Fails("boot.no-network");
    SlowMedia, "slow-media", Boot, Expected::Succeeds;

    /// The board is not the one that the BMC reports.
    WrongSerial, "wrong-serial", Node, Expected::Fails("partition.service");
    StepFails, "step-fails", Node, Expected::Fails("image-linux.service");
    CrashBeforePermit, "crash-before-permit", Node, SILENCE;
    RestartBeforePermit, "restart-before-permit", Node, Expected::Succeeds;
    CrashAfterPermit, "crash-after-permit", Node, SILENCE;
    RestartAfterPermit, "restart-after-permit", Node, Expected::Fails("node.restarted");
    SuccessWithoutPermit, "success-without-permit", Node, SILENCE;
    ResultLost, "result-lost", Node, SILENCE;
    ResultDuplicated, "result-duplicated", Node, Expected::Succeeds;
    /// Reports a failure after its success.
    ResultContradicted, "result-contradicted", Node, Expected::Succeeds;
    /// Somebody without the token reports a failure first.
    ResultForged, "result-forged", Node, Expected::Succeeds;
    /// A machine of another attempt reports a failure first.
    ResultStale, "result-stale", Node, Expected::Succeeds;

    EjectFails, "eject-fails", Cleanup, Expected::SucceedsWithProblem("cleanup.unmount");
    EjectRefusedWhileOn, "eject-refused-while-on", Cleanup, Expected::Succeeds;
    LieEject, "lie-eject", Cleanup, Expected::SucceedsWithProblem("cleanup.unmount");
    StaysOff, "stays-off", Cleanup, Expected::SucceedsWithProblem("cleanup.reset");
    RebootAtEject, "bmc-reboot-at-eject", Cleanup, Expected::Succeeds;

    /// Responds with 400 to every image.
    UpdateRefused, "update-refused", Update, Expected::Fails("firmware.transfer");
    UpdateTaskFails, "update-task-fails", Update, Expected::Fails("firmware.task");
    /// The update is done, but its task disappears at once.
    UpdateTaskVanish, "update-task-vanish", Update, Expected::Succeeds;
    /// Its task ends successfully, and the old version stays.
    UpdateNotEffective, "update-not-effective", Update, Expected::Fails("firmware.version");
    /// Restarts with its new firmware, and has lost all sessions.
    RebootAtUpdate, "bmc-reboot-at-update", Update, Expected::Succeeds;
}

impl Fault {
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// A text that the reason must contain on this BMC, if the step alone does not identify the cause.
    pub fn expected_words(self, profile: &Profile) -> Option<&'static str> {
        match self {
            Fault::StaleInserted if reaches_media(profile) => Some("--eject-foreign"),
            Fault::NoLicence if profile.errors() == Some(Errors::MessageIds) => Some("License"),
            Fault::TaskNotFound => Some("no drive that it sees holds its task"),
            Fault::TaskForged => Some("was not made by this controller"),
            Fault::NoLink => Some("no network interface has a link"),
            _ => None,
        }
    }

    /// Whether the job permits ejecting foreign media.
    pub fn permits_to_eject(self) -> bool {
        self == Fault::StaleEjected
    }

    /// Whether this fault can affect a job on this BMC.
    pub fn makes_sense_on(self, profile: &Profile) -> bool {
        if self.step() == Step::Update {
            return false;
        }
        let is_usable = PLANS_DONE.contains(&profile.plan());
        let is_before_media = self.step() == Step::Discover || self == Fault::NoSlots;
        // If the BMC has a copy of the medium, reads of the machine are not visible.
        let is_hidden = profile.has(Quirk::CopiesMedia)
            && self.step() == Step::Boot
            && self != Fault::NoNetwork
            && self.expected() != Expected::Succeeds;
        let has_tasks = match self {
            Fault::TaskVanish | Fault::TaskSlow | Fault::TaskFail => {
                profile.insert == Insert::Task || profile.name == "standard"
            }
            _ => true,
        };
        let is_of_slots = matches!(self, Fault::NoSlots | Fault::InsertBusy | Fault::IdsChange);
        // Firmware that downloads the medium does not read parts of it.
        let is_of_parts = matches!(
            self,
            Fault::StopsAtFirmware
                | Fault::StopsAtBootLoader
                | Fault::StopsAtKernel
                | Fault::StopsAtInitrd
                | Fault::NoTaskMedium
                | Fault::TaskNotFound
                | Fault::TaskForged
                | Fault::NoLink
        );
        let is_foreign = profile.plan() == Plan::Http && (is_of_slots || is_of_parts);
        (is_usable || is_before_media) && !is_hidden && has_tasks && !is_foreign
    }

    /// The result that a job or an update on this BMC must have.
    pub fn expected_on(self, profile: &Profile) -> Expected {
        let is_usable = PLANS_DONE.contains(&profile.plan());
        match self.expected() {
            // No client can decide which of its systems is meant.
            _ if profile.is_ambiguous() => DISCOVER,
            // Target and URL are set by one request, which takes the place of the insert.
            Expected::Fails(_) if profile.plan() == Plan::Http && self.step() == Step::Override => {
                MOUNT
            }
            // A machine that is off need not be switched off first.
            Expected::Fails(_) if self == Fault::PowerStuckOn && profile.has(Quirk::OffAtFirst) => {
                Expected::SucceedsWithProblem("cleanup.reset")
            }
            Expected::Fails(step) => Expected::Fails(step),
            other if self.step() == Step::Update => other,
            _ if !is_usable => MOUNT,
            other => other,
        }
    }
}

/// Whether a job on this BMC gets as far as inserting its media.
fn reaches_media(profile: &Profile) -> bool {
    PLANS_DONE.contains(&profile.plan()) && !profile.is_ambiguous()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fleet::profile::all;

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        for fault in Fault::ALL {
            assert_eq!(Fault::named(fault.name()), Some(*fault));
        }
        assert_eq!(Fault::named("hangs"), None);
    }

    #[test]
    fn each_fault_is_seen_on_some_bmc() {
        for fault in Fault::ALL.iter().filter(|fault| fault.step() != Step::Update) {
            assert!(all().any(|profile| fault.makes_sense_on(profile)), "{fault:?}");
        }
    }

    #[test]
    fn a_bmc_without_a_slot_is_expected_to_be_refused_at_the_insert() {
        for profile in all() {
            let is_refused = Fault::None.expected_on(profile) == MOUNT;
            assert_eq!(is_refused, !PLANS_DONE.contains(&profile.plan()), "{}", profile.name);
            assert_eq!(Fault::Hang.expected_on(profile), DISCOVER);
        }
    }
}
