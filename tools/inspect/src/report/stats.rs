//! `wal stats`: what the bytes of the log are used for.

use std::io::{self, Write};

use mainstay::lsn::Lsn;
use mainstay::wal::{AnyRecord, Layout, SegmentNumber};
use serde::Serialize;

use super::{Exit, Findings, Report, text};
use crate::directory::DataDirectory;
use crate::walk::{Gap, Met};

/// What `wal stats` shows.
#[derive(Debug, Serialize)]
pub struct Stats {
    kinds: Vec<KindUse>,
    segments: Vec<SegmentUse>,
    total: Use,
    /// Of the bytes that are in use: filler, and pad records.
    filler_and_pad_share: f64,
    /// Unknown if the log is damaged.
    end: Option<String>,
    #[serde(flatten)]
    findings: Findings,
}

/// Whole records of one kind.
#[derive(Debug, Serialize)]
struct KindUse {
    kind: &'static str,
    count: u64,
    payload_bytes: u64,
    /// Headers and padding.
    overhead_bytes: u64,
    /// Of the bytes of all whole records.
    share: f64,
}

#[derive(Debug, Serialize)]
struct SegmentUse {
    file: String,
    number: u64,
    #[serde(flatten)]
    used: Use,
}

/// What bytes are used for: the sum is the segment's size.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Use {
    /// Those that start in it.
    records: u64,
    payload_bytes: u64,
    /// Headers of records, and padding.
    overhead_bytes: u64,
    /// Headers of segments.
    header_bytes: u64,
    /// At a segment's end, too few for a record.
    filler_bytes: u64,
    /// Damaged, with whole records behind them.
    damaged_bytes: u64,
    /// Behind the log's end, or behind damage that no whole record follows.
    unused_bytes: u64,
}

impl Use {
    fn in_use_bytes(&self) -> u64 {
        self.payload_bytes + self.overhead_bytes + self.header_bytes + self.filler_bytes + self.damaged_bytes
    }

    fn add(&mut self, other: &Use) {
        self.records += other.records;
        self.payload_bytes += other.payload_bytes;
        self.overhead_bytes += other.overhead_bytes;
        self.header_bytes += other.header_bytes;
        self.filler_bytes += other.filler_bytes;
        self.damaged_bytes += other.damaged_bytes;
        self.unused_bytes += other.unused_bytes;
    }
}

struct Counter {
    layout: Layout,
    kinds: Vec<KindUse>,
    segments: Vec<(SegmentNumber, Use)>,
}

/// Counts what the log holds.
pub fn stats(directory: &DataDirectory) -> anyhow::Result<Stats> {
    let (layout, numbers, survey) = (directory.layout(), directory.segments.list()?, directory.survey()?);
    let mut findings = Findings::of(directory);
    directory.missing(&numbers).iter().for_each(|damage| findings.add(damage));
    let header_bytes = layout.offset_of(layout.first_record());
    let empty = Use { header_bytes, ..Use::default() };
    let segments = numbers.iter().map(|number| (*number, empty)).collect();
    let mut counter = Counter { layout, kinds: Vec::new(), segments };
    findings.add_of_whole_log(directory, &survey, &mut |met| match met {
        Met::Record(record) => counter.count(record),
        Met::Gap(gap) => counter.pass(gap),
        Met::End => {}
    })?;
    let end = survey.known_end().map(|end| end.to_string());
    Ok(counter.finish(directory, end, findings))
}

impl Counter {
    fn count(&mut self, record: &AnyRecord) {
        let (layout, mut at, mut rest) = (self.layout, record.start, record.payload.len());
        let mut overhead_bytes = 0;
        self.in_segment(at, |used| used.records += 1);
        loop {
            let part = layout.fragment(at, rest);
            let overhead = part.end.bytes_since(part.start) - part.len as u64;
            self.in_segment(part.start, |used| {
                used.payload_bytes += part.len as u64;
                used.overhead_bytes += overhead;
            });
            overhead_bytes += overhead;
            (at, rest) = (part.end, rest - part.len);
            if rest == 0 {
                break;
            }
        }
        // What is left of the segment, if no record fits there.
        if layout.offset_of(at) != 0 && layout.segment_of(layout.record_start(at)) != layout.segment_of(at) {
            let filler_bytes = layout.segment_start(layout.segment_of(at).next()).bytes_since(at);
            self.in_segment(at, |used| used.filler_bytes += filler_bytes);
        }
        let (kind, payload_bytes) = (record.kind.name(), record.payload.len() as u64);
        match self.kinds.iter_mut().find(|known| known.kind == kind) {
            Some(known) => {
                known.count += 1;
                known.payload_bytes += payload_bytes;
                known.overhead_bytes += overhead_bytes;
            }
            None => self.kinds.push(KindUse { kind, count: 1, payload_bytes, overhead_bytes, share: 0.0 }),
        }
    }

    fn pass(&mut self, gap: &Gap) {
        let (layout, Some(to)) = (self.layout, gap.to) else { return };
        for (number, used) in &mut self.segments {
            let (start, end) = (layout.first_record_in(*number), layout.segment_start(number.next()));
            used.damaged_bytes += to.min(end).bytes_since(gap.from.max(start));
        }
    }

    fn in_segment(&mut self, lsn: Lsn, change: impl FnOnce(&mut Use)) {
        let number = self.layout.segment_of(lsn);
        if let Ok(index) = self.segments.binary_search_by_key(&number, |(number, _)| *number)
            && let Some((_, used)) = self.segments.get_mut(index)
        {
            change(used);
        }
    }

    fn finish(mut self, directory: &DataDirectory, end: Option<String>, findings: Findings) -> Stats {
        let mut total = Use::default();
        for (_, used) in &mut self.segments {
            used.unused_bytes = self.layout.segment_bytes().saturating_sub(used.in_use_bytes());
            total.add(used);
        }
        let all = (total.payload_bytes + total.overhead_bytes).max(1) as f64;
        let mut pad_bytes = 0;
        for kind in &mut self.kinds {
            let bytes = kind.payload_bytes + kind.overhead_bytes;
            kind.share = bytes as f64 / all;
            if kind.kind == "pad" {
                pad_bytes = bytes;
            }
        }
        let timeline = directory.segments.timeline();
        let segments = self.segments.into_iter().map(|(number, used)| SegmentUse {
            file: self.layout.file_name(timeline, number),
            number: number.0,
            used,
        });
        Stats {
            kinds: self.kinds,
            segments: segments.collect(),
            total,
            filler_and_pad_share: (total.filler_bytes + pad_bytes) as f64 / total.in_use_bytes().max(1) as f64,
            end,
            findings,
        }
    }
}

impl Report for Stats {
    fn exit(&self) -> Exit {
        self.findings.exit()
    }

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let line = ["records", "count", "payload bytes", "overhead", "share"];
        writeln!(out, "{:<10}  {:>10}  {:>14}  {:>12}  {:>7}", line[0], line[1], line[2], line[3], line[4])?;
        for KindUse { kind, count, payload_bytes, overhead_bytes, share } in &self.kinds {
            let share = share * 100.0;
            writeln!(out, "{kind:<10}  {count:>10}  {payload_bytes:>14}  {overhead_bytes:>12}  {share:>6.2}%")?;
        }
        let line = ["segment", "records", "payload bytes", "overhead", "filler", "damaged", "unused"];
        write!(out, "\n{:<24}  {:>10}  {:>14}  {:>12}", line[0], line[1], line[2], line[3])?;
        writeln!(out, "  {:>8}  {:>11}  {:>11}", line[4], line[5], line[6])?;
        let total = SegmentUse { file: "total".into(), number: 0, used: self.total };
        for SegmentUse { file, used, .. } in self.segments.iter().chain([&total]) {
            let overhead = used.overhead_bytes + used.header_bytes;
            write!(out, "{file:<24}  {:>10}  {:>14}  {overhead:>12}", used.records, used.payload_bytes)?;
            writeln!(out, "  {:>8}  {:>11}  {:>11}", used.filler_bytes, used.damaged_bytes, used.unused_bytes)?;
        }
        let (share, used) = (self.filler_and_pad_share * 100.0, text::size(self.total.in_use_bytes()));
        writeln!(out, "\nfiller and pad records: {share:.2}% of {used} in use")?;
        writeln!(
            out,
            "A record counts where it starts, its bytes where they lie. A segment's own header is overhead."
        )?;
        if self.end.is_none() {
            writeln!(out, "The log is damaged: what lies behind its last whole record counts as unused.")?;
        }
        self.findings.write_text(out)
    }
}
