//! What `haypile check` prints.

use super::{Checked, CheckedShard, short};
use crate::server::datadir::DataDir;
use crate::store::{Content, Incarnation, StoreHead};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

pub fn line(out: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(out, "{text}")
}

pub fn write(out: &mut dyn Write, dir: &DataDir, checked: &Checked, slots: bool) -> io::Result<()> {
    let identity = &dir.identity;
    writeln!(
        out,
        "{}: format {}, id {}, {} shards, {} over {} slots",
        dir.path.display(),
        identity.format,
        identity.id,
        identity.shards,
        identity.slot_hash,
        identity.slots
    )?;
    for (at, shard) in checked.shards.iter().enumerate() {
        writeln!(out, "\nshard {} ({})", shard.shard.0, shard.dir.display())?;
        if let Ok((head, content)) = &shard.store {
            store(out, head, content, slots)?;
        }
        log(out, shard)?;
        start(out, checked, at)?;
        for problem in shard.problems() {
            writeln!(out, "  DAMAGED   {problem}")?;
        }
    }
    let problems = checked.problems().count();
    match problems {
        0 => writeln!(out, "\nnothing is wrong"),
        1 => writeln!(out, "\n1 problem"),
        many => writeln!(out, "\n{many} problems"),
    }
}

fn store(
    out: &mut dyn Write,
    head: &StoreHead,
    content: &BTreeMap<Incarnation, Content>,
    slots: bool,
) -> io::Result<()> {
    let used: BTreeSet<Incarnation> = head.slots.iter().map(|slot| slot.incarnation).collect();
    let (live, garbage): (Vec<_>, Vec<_>) = content.iter().partition(|(of, _)| used.contains(of));
    let total = sum(&live);
    writeln!(
        out,
        "  files     format {}, everything up to LSN {}: {} keys ({} that expire), {} elements, {} in {} slots",
        head.format,
        head.complete_lsn,
        total.keys,
        total.expiring,
        total.elements,
        size(total.bytes),
        live.len()
    )?;
    if !garbage.is_empty() {
        let total = sum(&garbage);
        writeln!(out, "            {} of flushed data not erased yet", size(total.bytes))?;
    }
    if slots {
        for slot in &head.slots {
            let Some(content) = content.get(&slot.incarnation) else { continue };
            writeln!(
                out,
                "            table {} slot {}: {} keys, {} elements, {}, next index {}",
                slot.table.0,
                slot.slot.0,
                content.keys,
                content.elements,
                size(content.bytes),
                slot.next_index
            )?;
        }
    }
    Ok(())
}

fn sum(contents: &[(&Incarnation, &Content)]) -> Content {
    contents.iter().fold(Content::default(), |sum, (_, content)| Content {
        keys: sum.keys + content.keys,
        expiring: sum.expiring + content.expiring,
        elements: sum.elements + content.elements,
        bytes: sum.bytes + content.bytes,
    })
}

fn log(out: &mut dyn Write, shard: &CheckedShard) -> io::Result<()> {
    let log = &shard.log;
    let lsns = log.lsns.map_or("empty".to_owned(), |(first, last)| format!("LSN {first} to {last}"));
    let term = log.newest().map_or(0, |header| header.term);
    writeln!(
        out,
        "  log       {} segments and {} spare, {lsns}, {} records ({} wholes, {} parts), term {term}",
        log.segments.len(),
        log.spares,
        log.records,
        log.wholes,
        log.parts
    )?;
    for (segment, bytes) in &log.segments {
        let of = segment.header.as_ref().map_or("its header cannot be read".to_owned(), |header| {
            format!("from LSN {}, term {}, {:?}", header.first.0, header.term, header.begun)
        });
        writeln!(out, "            {} ({}): {of}", short(&segment.path), size(*bytes))?;
    }
    Ok(())
}

fn start(out: &mut dyn Write, checked: &Checked, at: usize) -> io::Result<()> {
    let shard = &checked.shards[at];
    let (Ok((head, _)), Ok(seen)) = (&shard.store, &shard.seen) else {
        return line(out, "  a start   would be refused");
    };
    let end = checked.ends.as_ref().map_or(seen.end, |ends| ends[at]);
    let (from, to) = (head.complete_lsn + 1, end.saturating_sub(1));
    match to >= from {
        true => writeln!(out, "  a start   would replay LSN {from} to {to}")?,
        false => writeln!(out, "  a start   would replay nothing")?,
    }
    if let Some(cut) = &seen.cut {
        writeln!(
            out,
            "            and cut a torn tail before LSN {}: {}, offset {}",
            cut.lsn.0,
            cut.path.display(),
            cut.offset
        )?;
    }
    if end < seen.end {
        writeln!(
            out,
            "            and cut before LSN {end}: what stands there depends on what is lost elsewhere"
        )?;
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
