// SPDX-License-Identifier: AGPL-3.0-or-later
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

fn get_at(trace: &mut Trace, layout: &Layout, kind: MediumKind, bytes: Range<u64>, now: Instant) {
    let asked =
        Asked { peer: None, agent: "BMC".into(), method: "GET".into(), kind, bytes: bytes.clone() };
    trace.ask(layout, &asked, Timestamp::UNIX_EPOCH);
    trace.read(layout, kind, bytes, now);
}

#[test]
fn the_part_that_was_asked_for_last_in_the_order_of_a_boot_tells_the_stage() {
    for (reads, stage) in [
        (&[][..], Stage::Silent),
        (&[(0, 1)], Stage::Probed),
        // A read-ahead: no request began in the boot image.
        (&[(0, 2)], Stage::Probed),
        (&[(0, 1), (1, 3)], Stage::Probed),
        (&[(0, 1), (1, 4)], Stage::Firmware),
        // A search for a UDF volume.
        (&[(0, 1), (1, 4), (50, 51)], Stage::Firmware),
        (&[(1, 2), (11, 12)], Stage::BootLoader),
        (&[(1, 2), (11, 12), (31, 36)], Stage::Kernel { percent: 50 }),
        // Reading the same bytes again is no progress.
        (&[(31, 36), (31, 36)], Stage::Kernel { percent: 50 }),
        (&[(31, 41), (21, 22)], Stage::Initrd { percent: 10 }),
        (&[(31, 41), (21, 31), (41, 42)], Stage::Userspace),
        // Firmware read there before, but a kernel has not.
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
    // With this much read-ahead, in several requests.
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
    for (read, stage, with_task) in
        [(0..74 * MIB, Stage::Copied, Stage::TaskMedium), (0..MIB, Stage::Probed, Stage::Probed)]
    {
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
