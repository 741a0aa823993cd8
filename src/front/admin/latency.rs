//! LATENCY: distributions of commands' times, and the events that took longer than the threshold.

use super::slowlog::command_stats;
use super::{Sub, all_told, help, ok_or_error, run_subcommand, spec};
use crate::command::Group::Server;
use crate::command::Spec;
use crate::command::flag::{ADMIN, LOADING, NOSCRIPT, STALE};
use crate::error::ClientError;
use crate::front::{Answer, Ctx, Fold, FrontCommand};
use crate::metrics::commands::{CommandStat, CommandStats};
use crate::metrics::latency::{Event, Events, Series};
use crate::resp::args::Args;
use crate::resp::reply::Reply;
use crate::shard::mesh::{Ask, Tell};
use std::fmt::Write;

const FLAGS: u32 = ADMIN | LOADING | STALE | NOSCRIPT;

pub const COMMANDS: &[FrontCommand] = &[FrontCommand {
    spec: Spec {
        subcommands: &[
            spec(Server, "doctor", 2, FLAGS, "2.8.13", "O(1)", "Says in words what took long"),
            spec(Server, "graph", 3, FLAGS, "2.8.13", "O(1)", "Draws an event's samples"),
            spec(Server, "histogram", -2, FLAGS, "7.0.0", "O(commands)", "Answers how long commands take"),
            spec(Server, "history", 3, FLAGS, "2.8.13", "O(1)", "Answers an event's samples"),
            spec(Server, "latest", 2, FLAGS, "2.8.13", "O(1)", "Answers the latest sample of every event"),
            spec(Server, "reset", -2, FLAGS, "2.8.13", "O(1)", "Forgets samples"),
            spec(Server, "help", 2, LOADING | STALE, "2.8.13", "O(1)", "Prints this help"),
        ],
        ..spec(Server, "latency", -2, 0, "2.8.13", "Depends on subcommand.", "Commands about latencies")
    },
    run: |ctx, args| run_subcommand(SUBS, ctx, args),
}];

pub(super) const SUBS: &[Sub] = &[
    ("doctor", |_, _| Ok(ask(doctor))),
    ("graph", graph),
    ("histogram", histogram),
    ("history", history),
    ("latest", |_, _| Ok(ask(|_, events| latest(events)))),
    ("reset", reset),
    ("help", |_, _| Ok(help("LATENCY", COMMANDS[0].spec.subcommands))),
];

/// Asks every core for its events and answers with what is made of all together.
fn ask(show: impl FnOnce(&mut Ctx<'_>, &Events) -> Reply + 'static) -> Answer {
    let fold: Fold = Box::new(move |ctx, tells| ok_or_error(merged(tells).map(|events| show(ctx, &events))));
    Answer::AskAll(Ask::Events, fold)
}

fn merged(tells: Vec<Tell>) -> Result<Events, ClientError> {
    let events = |tell| if let Tell::Events(events) = tell { Some(events) } else { None };
    let mut sum = Events::default();
    all_told(tells, events)?.iter().for_each(|core| sum.add(core));
    Ok(sum)
}

fn named(args: &Args<'_>, at: usize) -> Option<Event> {
    Event::ALL.into_iter().find(|event| args.is(at, event.name()))
}

fn latest(events: &Events) -> Reply {
    let of = |event: Event| {
        let series = events.series(event);
        let last = series.samples.back()?;
        let numbers = [last.second, last.millis, series.max_millis].map(|number| Reply::Int(number as i64));
        Some(Reply::Array(std::iter::once(Reply::bulk(event.name())).chain(numbers).collect()))
    };
    Reply::Array(Event::ALL.into_iter().filter_map(of).collect())
}

/// As in Redis, an event that never was has no samples.
fn history(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let event = named(args, 2);
    Ok(ask(move |_, events| {
        let samples = event.into_iter().flat_map(|event| &events.series(event).samples);
        let pair = |sample: &crate::metrics::latency::Sample| {
            Reply::Array(vec![Reply::Int(sample.second as i64), Reply::Int(sample.millis as i64)])
        };
        Reply::Array(samples.map(pair).collect())
    }))
}

/// Answers how many events had something.
fn reset(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let events: Vec<Event> = match args.len() {
        2 => Event::ALL.to_vec(),
        count => (2..count).filter_map(|at| named(args, at)).collect(),
    };
    let wanted = events.clone();
    let then = move |_: &mut Ctx<'_>, tells: Vec<Tell>| {
        let all = merged(tells)?;
        let had = wanted.iter().filter(|event| !all.series(**event).samples.is_empty()).count();
        let fold: Fold = Box::new(move |_, _| Reply::Int(had as i64));
        Ok(Answer::AskAll(Ask::ResetEvents(events), fold))
    };
    Ok(Answer::AskThen(Ask::Events, Box::new(then)))
}

fn graph(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let given = String::from_utf8_lossy(args.get(2)).replace(['\r', '\n'], " ");
    let none = ClientError::new(format!("ERR No samples available for event '{given}'"));
    let Some(event) = named(args, 2) else { return Err(none) };
    Ok(ask(move |ctx, events| match events.series(event) {
        series if series.samples.is_empty() => Reply::Error(none),
        series => Reply::Verbatim(draw(event, series, ctx.now_ms / 1000).into()),
    }))
}

/// Samples side by side, four lines high, with how long ago each was below it.
fn draw(event: Event, series: &Series, now_s: u64) -> String {
    const LEVELS: [char; 3] = ['_', 'o', '#'];
    const ROWS: u64 = 4;
    let values = || series.samples.iter().map(|sample| sample.millis);
    let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    let mut text = format!(
        "{} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        event.name(),
        series.max_millis,
        "-".repeat(80)
    );
    let steps = ROWS * LEVELS.len() as u64;
    let height = |millis: u64| 1 + (millis - low) * (steps - 1) / (high - low).max(1);
    for row in (0..ROWS).rev() {
        for millis in values() {
            let above = height(millis).saturating_sub(row * LEVELS.len() as u64);
            text.push(match above {
                0 => ' ',
                level => LEVELS[(level as usize).min(LEVELS.len()) - 1],
            });
        }
        text.push('\n');
    }
    let ages: Vec<Vec<char>> = series.samples.iter().map(|sample| age(now_s, sample.second)).collect();
    text.push('\n');
    for line in 0..ages.iter().map(Vec::len).max().unwrap_or(0) {
        text.extend(ages.iter().map(|age| age.get(line).copied().unwrap_or(' ')));
        text.push('\n');
    }
    text
}

/// `5s`, `12m`, `3h`, `9d`; read downwards.
fn age(now_s: u64, then_s: u64) -> Vec<char> {
    let seconds = now_s.saturating_sub(then_s);
    let (number, unit) = match seconds {
        0..60 => (seconds, 's'),
        60..3600 => (seconds / 60, 'm'),
        3600..86_400 => (seconds / 3600, 'h'),
        _ => (seconds / 86_400, 'd'),
    };
    number.to_string().chars().chain([unit]).collect()
}

/// What each event hints at.
fn advice(event: Event) -> &'static str {
    match event {
        Event::Command => "SLOWLOG GET and SLOWLOG STAGES name the commands and where they were slow",
        Event::FastCommand => {
            "a command that does little waited: for its core (see turn), another core, or the disk"
        }
        Event::Turn => "something held a core: compare with commit; else a CPU that is shared (haypile tune)",
        Event::Commit => {
            "writing the log held a core: the disk is behind, or the kernel writes back too much at once"
        }
        Event::LogSync => "the disk is slow to sync; under appendfsync always every write waits for it",
        Event::ColdRead => "reads from the disk are slow: more memory_budget, or a quicker disk",
    }
}

fn doctor(ctx: &mut Ctx<'_>, events: &Events) -> Reply {
    if ctx.node.config.latency_monitor_threshold_ms == 0 {
        let text = "Nothing is watched: the latency monitor is off. \
                    CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n";
        return Reply::Verbatim(bytes::Bytes::from_static(text.as_bytes()));
    }
    let mut text = String::new();
    for event in Event::ALL {
        let series = events.series(event);
        let count = series.samples.len() as u64;
        if let (Some(first), Some(last)) = (series.samples.front(), series.samples.back()) {
            let sum: u64 = series.samples.iter().map(|sample| sample.millis).sum();
            writeln!(
                text,
                "{}: {count} seconds with a delay, {} ms on average, the worst {} ms; one every {} s. {}.",
                event.name(),
                sum / count,
                series.max_millis,
                (last.second - first.second) / count.max(1),
                advice(event)
            )
            .expect("a string takes everything");
        }
    }
    if text.is_empty() {
        text = format!("Nothing took {} ms.\n", ctx.node.config.latency_monitor_threshold_ms);
    }
    Reply::Verbatim(text.into())
}

fn histogram(_: &mut Ctx<'_>, args: &Args<'_>) -> Result<Answer, ClientError> {
    let named: Vec<String> =
        args.iter(2).map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
    let fold = move |_: &mut Ctx<'_>, tells| {
        let shown = |stats: CommandStats| {
            let sorted = stats.sorted();
            let wanted = sorted.iter().filter(|(name, stat)| {
                stat.times.count() > 0 && (named.is_empty() || named.iter().any(|wanted| wanted == *name))
            });
            Reply::Map(wanted.map(|(name, stat)| (Reply::bulk(*name), distribution(stat))).collect())
        };
        ok_or_error(command_stats(tells).map(shown))
    };
    Ok(Answer::AskAll(Ask::Report, Box::new(fold)))
}

/// Calls by microseconds, cumulated at powers of two, each where something is new.
fn distribution(stat: &CommandStat) -> Reply {
    let (mut buckets, mut seen, mut upto_us) = (Vec::new(), 0, 1);
    while seen < stat.times.count() {
        let count = stat.times.upto(upto_us);
        if count > seen {
            seen = count;
            buckets.push((Reply::Int(upto_us as i64), Reply::Int(seen as i64)));
        }
        upto_us *= 2;
    }
    Reply::Map(vec![
        (Reply::bulk("calls"), Reply::Int(stat.times.count() as i64)),
        (Reply::bulk("histogram_usec"), Reply::Map(buckets)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_shows_the_highest_highest() {
        let mut events = Events::default();
        events.threshold_ms = 1;
        for (second, millis) in [(100, 10), (101, 100), (160, 55)] {
            events.note(Event::Command, millis * 1_000_000, second * 1000);
        }
        let text = draw(Event::Command, events.series(Event::Command), 170);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "command - high 100 ms, low 10 ms (all time high 100 ms)");
        assert_eq!(lines[2..6], [" # ", " # ", " ##", "_##"]);
        assert_eq!(lines[7..], ["111", "mm0", "  s"]);
    }
}
