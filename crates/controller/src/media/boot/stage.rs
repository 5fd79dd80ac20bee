// SPDX-License-Identifier: AGPL-3.0-or-later
//! The stages of a boot: their descriptions, how long each may last, and the failure if a boot stays in one.

use std::time::Duration;

use api::signal::Signal;
use job::Failure;

/// How long the machine may signal the same cause before the job fails with it. The machine waits a minute before it
/// signals one (`dispatcher::reach`); switches with spanning tree open a port in 50 s (IEEE 802.1D-1998, 8.10.2), and
/// DHCP follows. The user sees the failure within three minutes of the first signal.
const SIGNALLED_MAX: Duration = Duration::from_secs(170);

/// The stage of a boot between the reset and the machine's hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has been read since the media were inserted.
    Silent,
    /// Only descriptors were read, as by a BMC that inspects the medium.
    Probed,
    /// The boot image is read: firmware boots from this medium.
    Firmware,
    /// The boot loader runs.
    BootLoader,
    Kernel {
        percent: u8,
    },
    Initrd {
        percent: u8,
    },
    /// The kernel runs and reads the root file system.
    Userspace,
    /// The maintenance OS runs and has read its task medium.
    TaskMedium,
    /// The maintenance OS runs, and signals through its reads why it cannot reach the controller.
    Told(Signal),
    /// The BMC copied the whole image. The machine's reads of the copy are not visible here.
    Copied,
    /// Firmware fetches the whole image into memory (UEFI HTTP boot).
    Downloading {
        percent: u8,
    },
    /// Firmware has the whole image. All further reads are from memory.
    Downloaded,
    /// The image is read, but its layout is not known.
    Unknown,
}

/// The reader of the maintenance medium, with the URL that it reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    Bmc(&'a str),
    Firmware(&'a str),
}

impl Stage {
    /// A description for the job's events.
    pub fn words(self) -> String {
        match self {
            Stage::Silent => "nothing was read yet".into(),
            Stage::Probed => "the BMC looked at the medium".into(),
            Stage::Firmware => "firmware reads the boot image".into(),
            Stage::BootLoader => "the boot loader runs".into(),
            Stage::Kernel { percent } => format!("kernel {percent} %"),
            Stage::Initrd { percent } => format!("initrd {percent} %"),
            Stage::Userspace => "the kernel runs and reads the root file system".into(),
            Stage::TaskMedium => "the maintenance OS read its task medium".into(),
            Stage::Told(signal) => format!("the maintenance OS tells: {}", told(signal)),
            Stage::Copied => "the BMC copied the whole medium".into(),
            Stage::Downloading { percent } => {
                format!("firmware downloads the medium: {percent} %")
            }
            Stage::Downloaded => "firmware downloaded the whole medium".into(),
            Stage::Unknown => "the medium is read".into(),
        }
    }

    /// Whether `self` is worth an event after the event of `told`: another stage, or the next quarter.
    pub fn is_news_after(self, told: Stage) -> bool {
        match (told, self) {
            (Stage::Kernel { percent: before }, Stage::Kernel { percent: now })
            | (Stage::Initrd { percent: before }, Stage::Initrd { percent: now })
            | (Stage::Downloading { percent: before }, Stage::Downloading { percent: now }) => {
                before / 25 < now / 25
            }
            _ => self != told,
        }
    }

    /// How long a boot may stay in this stage without a read, or with the same cause signalled. `None` where reads show
    /// nothing.
    pub fn silence_max(self) -> Option<Duration> {
        let minutes = |count: u64| Some(Duration::from_secs(count * 60));
        match self {
            // Large servers test their memory for ten minutes and start option ROMs after that.
            Stage::Silent | Stage::Probed => minutes(25),
            // Within one stage the reads follow each other at once; a BMC that restarts takes ten minutes.
            Stage::Firmware
            | Stage::BootLoader
            | Stage::Kernel { .. }
            | Stage::Initrd { .. }
            | Stage::Downloading { .. } => minutes(12),
            // The start of drivers and network links needs no read.
            Stage::Userspace | Stage::TaskMedium => minutes(20),
            // The machine has already waited for its drives.
            Stage::Told(signal) if signal.is_last() => minutes(1),
            Stage::Told(_) => Some(SIGNALLED_MAX),
            Stage::Copied | Stage::Downloaded | Stage::Unknown => None,
        }
    }

    /// Why no hello came, as far as the reads show. `node_url` is the address that the machine sends its messages to.
    pub fn failure(self, reader: Reader, node_url: &str) -> Failure {
        if let (Stage::Silent, Reader::Firmware(url)) = (self, reader) {
            return never_asked(url);
        }
        let (Reader::Bmc(media_url) | Reader::Firmware(media_url)) = reader;
        let (step, reason) = match self {
            Stage::Silent => (
                "boot.no-media-read",
                format!(
                    "the machine was reset, but nobody ever connected to {media_url} to read \
                     maintenance.iso: the BMC cannot reach that address, does not accept its \
                     certificate, or the machine did not boot from virtual media"
                ),
            ),
            Stage::Probed => (
                "boot.no-media-read",
                "the BMC fetched parts of maintenance.iso, but firmware never read its boot image: \
                 the boot override was ignored, or firmware cannot boot from this slot"
                    .into(),
            ),
            Stage::Firmware => (
                "boot.no-kernel",
                "firmware read the boot image, but the boot loader in it did not start: Secure \
                 Boot refused it, or the machine does not boot by UEFI"
                    .into(),
            ),
            Stage::BootLoader => (
                "boot.no-kernel",
                "the boot loader started, but did not get to the kernel".into(),
            ),
            Stage::Kernel { percent } => (
                "boot.no-kernel",
                format!("reading the kernel stopped at {percent} %: the BMC lost the medium, or the machine stopped"),
            ),
            Stage::Initrd { percent: percent @ 0..=98 } => (
                "boot.no-kernel",
                format!("reading the initrd stopped at {percent} %: the BMC lost the medium, or the machine stopped"),
            ),
            Stage::Initrd { .. } => (
                "boot.no-kernel",
                "kernel and initrd were read whole, but the kernel never read the root file \
                 system: it did not start, or does not see the virtual drive"
                    .into(),
            ),
            Stage::Userspace => (
                "boot.no-task-medium",
                "the maintenance OS came up, but never read its task medium: the machine does not \
                 see the second virtual drive, or it stopped before"
                    .into(),
            ),
            Stage::TaskMedium => (
                "boot.no-network",
                format!("the maintenance OS read its task medium, but did not reach {node_url}"),
            ),
            Stage::Told(signal) if signal.is_last() => {
                ("boot.no-task-medium", format!("the maintenance OS runs, but {}", told(signal)))
            }
            Stage::Told(signal) => (
                "boot.no-network",
                format!(
                    "the maintenance OS runs, but does not reach {node_url}: {}",
                    told(signal)
                ),
            ),
            Stage::Copied => (
                "boot.no-network",
                format!(
                    "the BMC copied the medium, and the machine did not say hello at {node_url}: \
                     it did not boot the copy, or has no network"
                ),
            ),
            Stage::Downloading { percent: 0 } => (
                "boot.no-media-read",
                format!(
                    "firmware asked {media_url} for maintenance.iso and did not download it: it has \
                     no memory for a RAM disk of that size, or lost its network"
                ),
            ),
            Stage::Downloading { percent } => (
                "boot.no-kernel",
                format!(
                    "firmware's download of maintenance.iso stopped at {percent} %: it lost its \
                     network, or the machine stopped"
                ),
            ),
            Stage::Downloaded => (
                "boot.no-network",
                format!(
                    "firmware downloaded the medium, and the machine did not say hello at \
                     {node_url}: it did not boot its RAM disk (Secure Boot refused it, or firmware \
                     cannot), or has no network"
                ),
            ),
            Stage::Unknown => (
                "boot.no-kernel",
                format!("the medium was read, but the machine did not say hello at {node_url}"),
            ),
        };
        Failure { step: step.into(), reason }
    }
}

/// The failure if firmware was to download the medium and sent no request.
fn never_asked(url: &str) -> Failure {
    Failure {
        step: "boot.no-media-read".into(),
        reason: format!(
            "the machine was reset, but its firmware never asked {url} for maintenance.iso: it got \
             no address (DHCP, or one set in the firmware), cannot reach that one, does not accept \
             its certificate or plain HTTP, or ignored the boot override"
        ),
    }
}

/// The signalled cause in words, with what to check.
fn told(signal: Signal) -> &'static str {
    match signal {
        Signal::NoTaskMedium => {
            "no drive that it sees holds its task: the BMC shows the second medium not at all, or as \
             a device that has no driver here"
        }
        Signal::TaskMediumUnreadable => {
            "it cannot read its task medium, or several are inserted for this machine; the console \
             tells which"
        }
        Signal::TaskMediumForeign => {
            "its task medium was not made by this controller for this boot: the signature is not \
             valid, or maintenance.iso is not the one that this controller serves; the console tells which"
        }
        Signal::NoInterface => "it has no network interface: a driver is missing",
        Signal::NoLink => {
            "no network interface has a link: look at the cables and at the switch's ports"
        }
        Signal::NoAddress => {
            "a network interface has a link, but no address: no DHCP server answers, or the recipe's \
             `network` names other MAC addresses"
        }
        Signal::NoRoute => {
            "it has an address, but no way there: a gateway is missing, or a router says that there \
             is none"
        }
        Signal::UnknownName => "the name in that URL cannot be resolved",
        Signal::NoAnswer => {
            "nothing answers there within 30 s: wrong VLAN or address, or a firewall"
        }
        Signal::ConnectionRefused => {
            "the connection is refused: no controller listens there, or a firewall answers"
        }
        Signal::CertificateRefused => {
            "what answers there has no certificate of this controller's CA: a proxy, another host, or \
             this machine's clock is far off"
        }
        Signal::OtherAnswer => "what answers there does not answer as a controller does",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_more_is_news_and_a_percent_is_not() {
        let kernel = |percent| Stage::Kernel { percent };
        for (told, now, is_news) in [
            (kernel(1), kernel(24), false),
            (kernel(1), kernel(25), true),
            (kernel(99), kernel(100), true),
            (kernel(100), kernel(100), false),
            (kernel(100), Stage::Initrd { percent: 0 }, true),
            (Stage::Downloading { percent: 1 }, Stage::Downloading { percent: 24 }, false),
            (Stage::Downloading { percent: 24 }, Stage::Downloading { percent: 25 }, true),
            (Stage::Silent, Stage::Silent, false),
        ] {
            assert_eq!(now.is_news_after(told), is_news, "{told:?} {now:?}");
        }
    }

    #[test]
    fn a_cause_that_does_not_change_ends_the_job_within_three_minutes() {
        for signal in Signal::ALL {
            let most = Stage::Told(signal).silence_max().unwrap();
            assert!(most < Duration::from_secs(180), "{signal:?}: {most:?}");
            assert!(most >= Duration::from_secs(60), "{signal:?}: {most:?}");
        }
    }

    #[test]
    fn different_troubles_have_different_reasons() {
        let all = [
            Stage::Silent,
            Stage::Probed,
            Stage::Firmware,
            Stage::BootLoader,
            Stage::Kernel { percent: 43 },
            Stage::Initrd { percent: 43 },
            Stage::Initrd { percent: 100 },
            Stage::Userspace,
            Stage::TaskMedium,
            Stage::Copied,
            Stage::Downloading { percent: 0 },
            Stage::Downloading { percent: 43 },
            Stage::Downloaded,
            Stage::Unknown,
        ];
        let all: Vec<Stage> =
            all.into_iter().chain(Signal::ALL.into_iter().map(Stage::Told)).collect();
        let reasons: std::collections::BTreeSet<_> = all
            .iter()
            .map(|stage| stage.failure(Reader::Bmc("http://m"), "http://n").reason)
            .collect();
        assert_eq!(reasons.len(), all.len());
        let unasked = Stage::Silent.failure(Reader::Firmware("http://f"), "http://n").reason;
        assert!(unasked.contains("never asked http://f") && !reasons.contains(&unasked));
    }
}
