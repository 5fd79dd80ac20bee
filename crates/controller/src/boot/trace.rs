// SPDX-License-Identifier: AGPL-3.0-or-later
//! What was read of a job's media: by byte of the maintenance ISO since the reset, and request by
//! request since the media were inserted.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;

use api::signal::{BLOCK_BYTES_MAX, Signal};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::Stage;
use super::layout::{Layout, Part};
use crate::store::MediumKind;

/// Bytes per bit of what is remembered: an optical sector.
const SECTOR: u64 = 2048;
/// Requests that are remembered, the last ones; a sequence of adjacent ones counts as one.
const REQUESTS_MAX: usize = 2000;
/// Firmware that boots from a medium reads so much of its boot image. Less is a look: for a UDF volume
/// it reads three sectors of any medium (ECMA-167, 3/8.4.2.1), one of them within the boot image, one
/// within the root file system, and BMCs read ahead of that.
const BOOT_IMAGE_PERCENT: u8 = 25;
/// What was loaded before the next part can be of use.
const LOADED_PERCENT: u8 = 90;
/// A medium of which so much was asked for in one request is copied, not booted from.
const COPY_PERCENT: u64 = 90;

/// One answered GET or HEAD, or several that follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    pub at: Timestamp,
    pub peer: Option<IpAddr>,
    pub agent: String,
    pub method: String,
    pub medium: &'static str,
    /// First byte asked for, and the one after the last.
    pub start: u64,
    pub end: u64,
    /// How many requests this line stands for.
    pub count: u64,
}

/// A request for a part of a medium, as it comes in.
#[derive(Debug, Clone)]
pub struct Asked {
    pub peer: Option<IpAddr>,
    pub agent: String,
    pub method: String,
    pub kind: MediumKind,
    pub bytes: Range<u64>,
}

/// The reads of one job's media since they were inserted.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// `None` before the first read. Not a time of day: that may be set while a machine boots.
    pub last_at: Option<Instant>,
    pub maintenance_bytes: u64,
    pub task_bytes: u64,
    requests: VecDeque<Request>,
    /// Requests that were forgotten.
    pub dropped: u64,
    /// When the machine was reset; what follows is of this boot.
    boot: Option<Boot>,
    /// The medium was read whole before the reset.
    is_copied: bool,
}

/// One boot's reads of the maintenance ISO.
#[derive(Debug, Clone)]
struct Boot {
    began_at: Instant,
    last_at: Instant,
    sectors: Vec<u64>,
    /// Distinct bytes read, by part.
    read: [u64; Part::COUNT],
    /// A request began in this part. What is read ahead of a request touches parts that nobody
    /// asked for.
    touched: [bool; Part::COUNT],
    /// After the initrd was: firmware that looks for a UDF volume may meet the root file system, too.
    is_root_read: bool,
    is_task_read: bool,
    is_copied: bool,
    /// Firmware asked, which reads the whole image and no part of it.
    is_download: bool,
    /// The last cause that the maintenance OS signalled by what it read.
    signal: Option<Signal>,
    /// That cause, and when its bytes were first read. Other reads do not change the time.
    signalled: Option<(Signal, Instant)>,
    /// The last one, and those that nobody has asked for yet.
    stage: Stage,
    news: Vec<Stage>,
}

impl Trace {
    /// A request, before its first byte goes out.
    pub fn ask(&mut self, layout: &Layout, asked: &Asked, at: Timestamp) {
        let is_get = asked.method == "GET";
        let is_maintenance = asked.kind.boots();
        if let Some(boot) = &mut self.boot {
            boot.is_download |= asked.kind == MediumKind::HttpBoot;
        }
        let is_followed = self.requests.back().is_some_and(|last| last.is_followed_by(asked));
        if is_get && is_maintenance {
            let length = asked.bytes.end.saturating_sub(asked.bytes.start);
            let is_copy = length.saturating_mul(100) >= layout.size().saturating_mul(COPY_PERCENT)
                && layout.size() > 0;
            match &mut self.boot {
                Some(boot) => {
                    boot.is_copied |= is_copy;
                    if let Some(part) = layout.part_at(asked.bytes.start) {
                        boot.touched[part as usize] = true;
                        let is_loaded = boot.percent(layout, Part::Initrd) >= LOADED_PERCENT;
                        boot.is_root_read |= part == Part::Root && is_loaded;
                    }
                    // A request that continues the one before is read-ahead, or part of a copy.
                    let is_aimed = !is_followed && !is_large_block(&asked.bytes);
                    let signal = layout.signal_at(asked.bytes.start).filter(|_| is_aimed);
                    if signal.is_some() && boot.is_root_read {
                        boot.signal = signal;
                    }
                }
                None => self.is_copied |= is_copy,
            }
        }
        self.look(layout);
        if let Some(last) = self.requests.back_mut().filter(|_| is_followed) {
            last.end = asked.bytes.end;
            last.count += 1;
            return;
        }
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
            self.dropped += 1;
        }
        self.requests.push_back(Request {
            at,
            peer: asked.peer,
            agent: asked.agent.clone(),
            method: asked.method.clone(),
            medium: asked.kind.file_name(),
            start: asked.bytes.start,
            end: asked.bytes.end,
            count: 1,
        });
    }

    /// Bytes that went out.
    pub fn read(&mut self, layout: &Layout, kind: MediumKind, bytes: Range<u64>, now: Instant) {
        let length = bytes.end - bytes.start;
        self.last_at = Some(now);
        *if kind.boots() { &mut self.maintenance_bytes } else { &mut self.task_bytes } += length;
        let Some(boot) = &mut self.boot else { return };
        boot.last_at = now;
        if boot.signal != boot.signalled.map(|(signal, _)| signal) {
            boot.signalled = boot.signal.map(|signal| (signal, now));
        }
        if kind.boots() {
            boot.mark(layout, bytes);
        } else {
            boot.is_task_read = true;
        }
        self.look(layout);
    }

    /// Notes where the boot is now: a stage may last less than the time between two questions.
    fn look(&mut self, layout: &Layout) {
        let Some(boot) = &mut self.boot else { return };
        let stage = boot.stage(layout, self.maintenance_bytes);
        if stage.is_news_after(boot.stage) {
            boot.stage = stage;
            boot.news.push(stage);
        }
    }

    /// The stages since the last call.
    pub fn news(&mut self) -> Vec<Stage> {
        self.boot.as_mut().map(|boot| std::mem::take(&mut boot.news)).unwrap_or_default()
    }

    /// The machine is reset now.
    pub fn begin_boot(&mut self, layout: &Layout, now: Instant) {
        let all = layout.size();
        // Many small reads can be a copy as well.
        let was_read = self.maintenance_bytes.saturating_mul(100) >= all * COPY_PERCENT && all > 0;
        let sectors = usize::try_from(all.div_ceil(SECTOR * 64)).unwrap_or(0);
        self.boot = Some(Boot {
            began_at: now,
            last_at: now,
            sectors: vec![0; sectors],
            read: [0; Part::COUNT],
            touched: [false; Part::COUNT],
            is_root_read: false,
            is_task_read: false,
            is_copied: self.is_copied || was_read,
            is_download: false,
            signal: None,
            signalled: None,
            stage: Stage::Silent,
            news: Vec::new(),
        });
        self.look(layout);
    }

    /// How far the boot came, and since when it got no further: since the last read, or, where the machine
    /// signalled a cause, since it first did. `None` where no reset was seen.
    pub fn stage(&self, layout: &Layout, now: Instant) -> Option<(Stage, std::time::Duration)> {
        let boot = self.boot.as_ref()?;
        let stage = boot.stage(layout, self.maintenance_bytes);
        let last_read = boot.last_at.max(boot.began_at);
        let since = match (stage, boot.signalled) {
            // A running system reads its root file system all the time.
            (Stage::Told(_), Some((_, at))) => at,
            _ => last_read,
        };
        Some((stage, now.saturating_duration_since(since)))
    }

    pub fn is_booting(&self) -> bool {
        self.boot.is_some()
    }

    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter()
    }
}

/// Whether a BMC that reads in blocks asked for this one: it begins anywhere before the bytes that the machine
/// wanted, so that its first byte says nothing.
fn is_large_block(bytes: &Range<u64>) -> bool {
    let length = bytes.end.saturating_sub(bytes.start);
    length > BLOCK_BYTES_MAX && length.is_power_of_two() && bytes.start.is_multiple_of(length)
}

impl Request {
    fn is_followed_by(&self, asked: &Asked) -> bool {
        self.end == asked.bytes.start
            && self.medium == asked.kind.file_name()
            && self.method == asked.method
            && self.peer == asked.peer
            && self.agent == asked.agent
    }
}

impl Boot {
    /// Counts the sectors that were not read before, each for the part that it begins in.
    fn mark(&mut self, layout: &Layout, bytes: Range<u64>) {
        for region in layout.from(bytes.start) {
            if region.bytes.start >= bytes.end {
                return;
            }
            let start = region.bytes.start.max(bytes.start);
            let end = region.bytes.end.min(bytes.end);
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                let Ok(word) = usize::try_from(sector / 64) else { return };
                let Some(word) = self.sectors.get_mut(word) else { return };
                let bit = 1 << (sector % 64);
                if *word & bit == 0 {
                    *word |= bit;
                    self.read[region.part as usize] += SECTOR;
                }
            }
        }
    }

    /// How much of the image firmware has.
    fn download(&self, size: u64) -> Stage {
        let read: u64 = self.read.iter().sum();
        match u8::try_from(read.saturating_mul(100) / size) {
            Ok(percent @ 0..100) => Stage::Downloading { percent },
            Ok(_) | Err(_) => Stage::Downloaded,
        }
    }

    fn percent(&self, layout: &Layout, part: Part) -> u8 {
        let of_all = self.read[part as usize].saturating_mul(100) / layout.length(part).max(1);
        u8::try_from(of_all.min(100)).unwrap_or(100)
    }

    fn stage(&self, layout: &Layout, bytes_since_insert: u64) -> Stage {
        let percent = |part: Part| self.percent(layout, part);
        let has = |part: Part| self.touched[part as usize];
        let is_read = self.read.iter().any(|bytes| *bytes > 0);
        if self.is_download && layout.size() > 0 {
            return self.download(layout.size());
        }
        if let Some(signal) = self.signal {
            return Stage::Told(signal);
        }
        // Firmware looks at every stick, too: only a running system reads its task.
        if self.is_task_read && (self.is_root_read || self.is_copied || !layout.is_known()) {
            Stage::TaskMedium
        } else if self.is_copied {
            Stage::Copied
        } else if !layout.is_known() {
            if is_read || bytes_since_insert > 0 { Stage::Unknown } else { Stage::Silent }
        } else if percent(Part::Task) >= LOADED_PERCENT {
            // Within this medium the task is read whole; probes for file systems read parts of it.
            Stage::TaskMedium
        } else if self.is_root_read {
            Stage::Userspace
        } else if has(Part::Initrd) && percent(Part::Kernel) >= LOADED_PERCENT {
            Stage::Initrd { percent: percent(Part::Initrd) }
        } else if has(Part::Kernel) {
            Stage::Kernel { percent: percent(Part::Kernel) }
        } else if has(Part::BootLoader) {
            Stage::BootLoader
        } else if percent(Part::BootImage) >= BOOT_IMAGE_PERCENT {
            Stage::Firmware
        } else if is_read || bytes_since_insert > 0 {
            Stage::Probed
        } else {
            Stage::Silent
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::layout::tests::{MIB, SIGNALS_MIB, layout};
    use super::*;

    /// What a boot that reads these MiB, each in one request, shows.
    fn stage_after(reads: &[(u64, u64)]) -> Stage {
        let (layout, mut trace, now) = (layout(), Trace::default(), Instant::now());
        trace.begin_boot(&layout, now);
        for (start, end) in reads {
            get(&mut trace, &layout, MediumKind::Maintenance, start * MIB..end * MIB);
        }
        trace.stage(&layout, now).unwrap().0
    }

    fn get(trace: &mut Trace, layout: &Layout, kind: MediumKind, bytes: Range<u64>) {
        get_at(trace, layout, kind, bytes, Instant::now());
    }

    fn get_at(
        trace: &mut Trace,
        layout: &Layout,
        kind: MediumKind,
        bytes: Range<u64>,
        now: Instant,
    ) {
        let asked = Asked {
            peer: None,
            agent: "BMC".into(),
            method: "GET".into(),
            kind,
            bytes: bytes.clone(),
        };
        trace.ask(layout, &asked, Timestamp::UNIX_EPOCH);
        trace.read(layout, kind, bytes, now);
    }

    #[test]
    fn the_part_that_was_asked_for_last_in_the_order_of_a_boot_tells_the_stage() {
        for (reads, stage) in [
            (&[][..], Stage::Silent),
            (&[(0, 1)], Stage::Probed),
            // Read ahead: nobody asked for the boot image.
            (&[(0, 2)], Stage::Probed),
            (&[(0, 1), (1, 3)], Stage::Probed),
            (&[(0, 1), (1, 4)], Stage::Firmware),
            // Somebody looks for a UDF volume.
            (&[(0, 1), (1, 4), (50, 51)], Stage::Firmware),
            (&[(1, 2), (11, 12)], Stage::BootLoader),
            (&[(1, 2), (11, 12), (31, 36)], Stage::Kernel { percent: 50 }),
            // The same bytes again are no progress.
            (&[(31, 36), (31, 36)], Stage::Kernel { percent: 50 }),
            (&[(31, 41), (21, 22)], Stage::Initrd { percent: 10 }),
            (&[(31, 41), (21, 31), (41, 42)], Stage::Userspace),
            // Firmware looked there before: no kernel has.
            (&[(50, 51), (31, 41), (21, 31)], Stage::Initrd { percent: 100 }),
            (&[(31, 41), (21, 31), (41, 42), (51, 53)], Stage::Userspace),
            (&[(31, 41), (21, 31), (41, 42), (51, 61)], Stage::TaskMedium),
            (&[(0, 74)], Stage::Copied),
        ] {
            assert_eq!(stage_after(reads), stage, "{reads:?}");
        }
    }

    #[test]
    fn every_stage_is_told_once_however_short_it_was() {
        let (layout, mut trace) = (layout(), Trace::default());
        trace.begin_boot(&layout, Instant::now());
        for mib in (0..1).chain(1..5).chain(11..12).chain(31..41).chain(21..31).chain(41..43) {
            get(&mut trace, &layout, MediumKind::Maintenance, mib * MIB..(mib + 1) * MIB);
        }
        let kernel = |percent| Stage::Kernel { percent };
        let initrd = |percent| Stage::Initrd { percent };
        let all = trace.news();
        let expected = [
            Stage::Probed,
            Stage::Firmware,
            Stage::BootLoader,
            kernel(0),
            kernel(30),
            kernel(50),
            kernel(80),
            kernel(100),
            initrd(0),
            initrd(30),
            initrd(50),
            initrd(80),
            initrd(100),
            Stage::Userspace,
        ];
        assert_eq!(all, expected);
        assert_eq!(trace.news(), []);
    }

    #[test]
    fn firmware_that_looks_at_a_stick_has_not_booted() {
        let (layout, mut trace, now) = (layout(), Trace::default(), Instant::now());
        trace.begin_boot(&layout, now);
        let mut stage_after = |kind, mib: Range<u64>| {
            get(&mut trace, &layout, kind, mib.start * MIB..mib.end * MIB);
            trace.stage(&layout, now).unwrap().0
        };
        assert_eq!(stage_after(MediumKind::TaskStick, 0..1), Stage::Silent);
        assert_eq!(stage_after(MediumKind::Maintenance, 1..5), Stage::Firmware);
        stage_after(MediumKind::Maintenance, 31..41);
        stage_after(MediumKind::Maintenance, 21..31);
        assert_eq!(stage_after(MediumKind::Maintenance, 41..42), Stage::TaskMedium);
    }

    #[test]
    fn firmware_that_downloads_is_no_bmc_that_copies() {
        let (layout, mut trace, now) = (layout(), Trace::default(), Instant::now());
        trace.begin_boot(&layout, now);
        let ask = |trace: &mut Trace, method: &str| {
            let asked = Asked {
                peer: None,
                agent: String::new(),
                method: method.into(),
                kind: MediumKind::HttpBoot,
                bytes: 0..layout.size(),
            };
            trace.ask(&layout, &asked, Timestamp::UNIX_EPOCH);
            trace.stage(&layout, now).unwrap().0
        };
        let downloading = |percent| Stage::Downloading { percent };
        assert_eq!(trace.stage(&layout, now).unwrap().0, Stage::Silent);
        assert_eq!(ask(&mut trace, "HEAD"), downloading(0));
        assert_eq!(ask(&mut trace, "GET"), downloading(0));
        let (half, last) = (layout.size() / 2, layout.size() - MIB);
        for (bytes, stage) in [
            (0..half, downloading(50)),
            (half..last, downloading(98)),
            (last..layout.size(), Stage::Downloaded),
        ] {
            trace.read(&layout, MediumKind::HttpBoot, bytes, now);
            assert_eq!(trace.stage(&layout, now).unwrap().0, stage);
        }
        let all = [downloading(0), downloading(50), downloading(98), Stage::Downloaded];
        assert_eq!(trace.news(), all);
    }

    #[test]
    fn a_running_system_is_heard_by_what_it_reads_and_what_is_read_ahead_says_nothing() {
        let (layout, mut trace, now) = (layout(), Trace::default(), Instant::now());
        trace.begin_boot(&layout, now);
        let mut stage_after = |bytes: Range<u64>| {
            get(&mut trace, &layout, MediumKind::Maintenance, bytes);
            trace.stage(&layout, now).unwrap().0
        };
        let place = |signal: Signal| SIGNALS_MIB * MIB + signal.offset();
        let sector = |signal: Signal| place(signal)..place(signal) + 2048;
        assert_eq!(stage_after(sector(Signal::NoLink)), Stage::Probed, "no system runs yet");
        stage_after(31 * MIB..41 * MIB);
        stage_after(21 * MIB..31 * MIB);
        assert_eq!(stage_after(41 * MIB..42 * MIB), Stage::Userspace);
        assert_eq!(stage_after(sector(Signal::NoLink)), Stage::Told(Signal::NoLink));
        // With so much read ahead, in several requests.
        let ahead = place(Signal::NoAnswer) + MIB;
        assert_eq!(stage_after(place(Signal::NoAnswer)..ahead), Stage::Told(Signal::NoAnswer));
        assert_eq!(stage_after(ahead..ahead + MIB), Stage::Told(Signal::NoAnswer));
        assert_eq!(trace.news().last(), Some(&Stage::Told(Signal::NoAnswer)));
    }

    #[test]
    fn a_large_block_that_touches_the_signals_signals_nothing() {
        let (layout, now) = (layout(), Instant::now());
        let signals = SIGNALS_MIB * MIB..SIGNALS_MIB * MIB + api::signal::FILE_BYTES;
        for block in [128 << 10, 256 << 10, 512 << 10, MIB] {
            let mut trace = Trace::default();
            trace.begin_boot(&layout, now);
            for bytes in [31 * MIB..41 * MIB, 21 * MIB..31 * MIB, 41 * MIB..42 * MIB] {
                get(&mut trace, &layout, MediumKind::Maintenance, bytes);
            }
            let mut start = signals.start / block * block;
            while start < signals.end {
                get(&mut trace, &layout, MediumKind::Maintenance, start..start + block);
                let stage = trace.stage(&layout, now).unwrap().0;
                assert_eq!(stage, Stage::Userspace, "{start} {block}");
                start += 2 * block;
            }
        }
    }

    #[test]
    fn a_copy_before_the_reset_hides_the_boot_and_a_probe_before_it_is_one() {
        let layout = layout();
        for (read, stage, with_task) in [
            (0..74 * MIB, Stage::Copied, Stage::TaskMedium),
            (0..MIB, Stage::Probed, Stage::Probed),
        ] {
            let (mut trace, now) = (Trace::default(), Instant::now());
            get(&mut trace, &layout, MediumKind::Maintenance, read);
            assert_eq!(trace.stage(&layout, now), None);
            trace.begin_boot(&layout, now);
            assert_eq!(trace.stage(&layout, now).unwrap().0, stage);
            get(&mut trace, &layout, MediumKind::Task, 0..2048);
            assert_eq!(trace.stage(&layout, now).unwrap().0, with_task);
        }
    }

    #[test]
    fn adjacent_requests_are_one_line_and_the_oldest_lines_go() {
        let (layout, mut trace) = (layout(), Trace::default());
        for block in 0..1000 {
            get(&mut trace, &layout, MediumKind::Maintenance, block * 2048..(block + 1) * 2048);
        }
        let lines: Vec<_> = trace.requests().map(|r| (r.start, r.end, r.count)).collect();
        assert_eq!(lines, [(0, 1000 * 2048, 1000)]);
        for block in 0..REQUESTS_MAX as u64 {
            get(&mut trace, &layout, MediumKind::Maintenance, block * 4096..block * 4096 + 2048);
        }
        assert_eq!(trace.requests().count(), REQUESTS_MAX);
        assert_eq!(trace.dropped, 1);
    }

    #[test]
    fn silence_is_counted_from_the_last_read_of_this_boot() {
        let (layout, mut trace, began) = (layout(), Trace::default(), Instant::now());
        trace.begin_boot(&layout, began);
        let silence = |trace: &Trace, secs| {
            trace.stage(&layout, began + Duration::from_secs(secs)).unwrap().1.as_secs()
        };
        assert_eq!(silence(&trace, 60), 60);
        trace.read(&layout, MediumKind::Maintenance, 0..1, began + Duration::from_secs(50));
        assert_eq!(silence(&trace, 60), 10);
    }

    #[test]
    fn a_cause_that_stays_the_same_counts_from_its_first_signal() {
        let (layout, mut trace, began) = (layout(), Trace::default(), Instant::now());
        trace.begin_boot(&layout, began);
        let read = |trace: &mut Trace, bytes: Range<u64>, secs| {
            let now = began + Duration::from_secs(secs);
            get_at(trace, &layout, MediumKind::Maintenance, bytes, now);
        };
        let silence = |trace: &Trace, secs| {
            let now = began + Duration::from_secs(secs);
            trace.stage(&layout, now).map(|(stage, silence)| (stage, silence.as_secs()))
        };
        let place = |signal: Signal| {
            let at = SIGNALS_MIB * MIB + signal.offset();
            at..at + 2048
        };
        for bytes in [31 * MIB..41 * MIB, 21 * MIB..31 * MIB, 41 * MIB..42 * MIB] {
            read(&mut trace, bytes, 10);
        }
        read(&mut trace, place(Signal::NoLink), 100);
        read(&mut trace, 43 * MIB..44 * MIB, 150);
        assert_eq!(silence(&trace, 200), Some((Stage::Told(Signal::NoLink), 100)));
        read(&mut trace, place(Signal::NoAddress), 210);
        read(&mut trace, 45 * MIB..46 * MIB, 250);
        assert_eq!(silence(&trace, 260), Some((Stage::Told(Signal::NoAddress), 50)));
    }
}
