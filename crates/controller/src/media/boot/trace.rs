// SPDX-License-Identifier: AGPL-3.0-or-later
//! The reads of a job's media: the bytes of the maintenance ISO that were read since the reset, and the list of
//! requests since the media were inserted.

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

/// Bytes per bit of the record of reads: an optical sector.
const SECTOR: u64 = 2048;
/// Most requests that are kept, the latest ones; a sequence of adjacent requests counts as one.
const REQUESTS_MAX: usize = 2000;
/// Firmware that boots from a medium reads at least this much of its boot image. Less is only an inspection: in search
/// of a UDF volume, firmware reads three sectors of any medium (ECMA-167, 3/8.4.2.1), one of them within the boot image
/// and one within the root file system, and BMCs read ahead from there.
const BOOT_IMAGE_PERCENT: u8 = 25;
/// How much of a part must have been read before a read of the next part counts.
const LOADED_PERCENT: u8 = 90;
/// A medium of which this much was requested in one request is copied, not booted from.
const COPY_PERCENT: u64 = 90;

/// One GET or HEAD that was served, or several that follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    pub at: Timestamp,
    pub peer: Option<IpAddr>,
    pub agent: String,
    pub method: String,
    pub medium: &'static str,
    /// The first byte that was requested, and the one after the last.
    pub start: u64,
    pub end: u64,
    /// How many requests are merged into this one.
    pub count: u64,
}

/// A request for a part of a medium, as it arrives.
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
    /// `None` before the first read. Not a time of day, because the clock may be set while a machine boots.
    pub last_at: Option<Instant>,
    pub maintenance_bytes: u64,
    pub task_bytes: u64,
    requests: VecDeque<Request>,
    /// Requests that were dropped from the list.
    pub dropped: u64,
    /// The boot since the last reset, if there was one.
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
    /// Whether a request began in this part. A read-ahead goes beyond it, into parts that the machine did not request.
    touched: [bool; Part::COUNT],
    /// The root file system was read after the initrd. Before that, the read may be firmware's search for a UDF volume.
    is_root_read: bool,
    is_task_read: bool,
    is_copied: bool,
    /// Firmware sent a request (UEFI HTTP boot). It reads the whole image, so the parts show nothing.
    is_download: bool,
    /// The last cause that the maintenance OS signalled through its reads.
    signal: Option<Signal>,
    /// When the bytes of that signal were first read. Other reads do not change the time.
    signalled_at: Option<Instant>,
    /// The latest stage, and the stages that `news` has not yet returned.
    stage: Stage,
    news: Vec<Stage>,
}

impl Trace {
    /// Records a request, before its first byte is sent.
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
                    if signal.is_some() && signal != boot.signal && boot.is_root_read {
                        (boot.signal, boot.signalled_at) = (signal, None);
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

    /// Records bytes that were sent.
    pub fn read(&mut self, layout: &Layout, kind: MediumKind, bytes: Range<u64>, now: Instant) {
        let length = bytes.end - bytes.start;
        self.last_at = Some(now);
        *if kind.boots() { &mut self.maintenance_bytes } else { &mut self.task_bytes } += length;
        let Some(boot) = &mut self.boot else { return };
        boot.last_at = now;
        if boot.signal.is_some() {
            boot.signalled_at.get_or_insert(now);
        }
        if kind.boots() {
            boot.mark(layout, bytes);
        } else {
            boot.is_task_read = true;
        }
        self.look(layout);
    }

    /// Records the stage of the boot now: a stage may be shorter than the time between two calls of `news`.
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

    /// Begins a new boot: the machine is reset now.
    pub fn begin_boot(&mut self, layout: &Layout, now: Instant) {
        let all = layout.size();
        // Many small reads can be a copy too.
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
            signalled_at: None,
            stage: Stage::Silent,
            news: Vec::new(),
        });
        self.look(layout);
    }

    /// The stage of the boot, and for how long it has made no progress: since the last read, or, if the machine signals
    /// a cause, since it first did. `None` if this process did no reset.
    pub fn stage(&self, layout: &Layout, now: Instant) -> Option<(Stage, std::time::Duration)> {
        let boot = self.boot.as_ref()?;
        let stage = boot.stage(layout, self.maintenance_bytes);
        let last_read = boot.last_at.max(boot.began_at);
        let since = match (stage, boot.signalled_at) {
            // A running system reads its root file system all the time, so other reads do not count.
            (Stage::Told(_), Some(at)) => at,
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

/// Whether this is a request of a BMC that reads in large blocks. Such a block begins anywhere before the bytes that
/// the machine wanted, so its first byte shows nothing.
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

    /// The stage of a download, by how much of the image was sent.
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
        // Firmware inspects every stick too; only a read by a running system is a read of the task.
        if self.is_task_read && (self.is_root_read || self.is_copied || !layout.is_known()) {
            Stage::TaskMedium
        } else if self.is_copied {
            Stage::Copied
        } else if !layout.is_known() {
            if is_read || bytes_since_insert > 0 { Stage::Unknown } else { Stage::Silent }
        } else if percent(Part::Task) >= LOADED_PERCENT {
            // A task within this medium is read whole; probes for file systems read only parts of it.
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
mod tests;
