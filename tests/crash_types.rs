//! Kills the server with SIGKILL while it changes collections of every type, and compares after each restart
//! everything that every key holds with what it must hold.
//!
//! Each writer has a database of its own and sends commands in pipelines. What was answered must be there,
//! under every `appendfsync`; of what was not, each command is there whole or not at all, and none without
//! those whose work it has seen.

#[macro_use]
mod harness;
mod collections;

use collections::{Answer, Blob, Commands, Model, Value, is_alike, read_all};
use harness::{Client, Options, Server, Value as Reply, render};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WRITERS: usize = 3;
const PIPELINE_MAX: usize = 10;

type Args = Vec<Vec<u8>>;

struct Writer {
    database: usize,
    commands: Commands,
    /// What has been answered.
    model: Model,
    /// Asked for and not answered.
    under_way: Vec<Args>,
    answered: usize,
    tally: Tally,
}

/// What the crashes have met: a run that misses some of it proves less.
#[derive(Default)]
struct Tally {
    /// Commands without an answer whose work was found, and such whose work was not.
    kept: usize,
    lost: usize,
    /// Found after a crash, by kind: those small enough for their row, those that are not.
    found: BTreeMap<&'static str, [usize; 2]>,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.kept += other.kept;
        self.lost += other.lost;
        for (kind, counts) in &other.found {
            let sums = self.found.entry(kind).or_default();
            *sums = [sums[0] + counts[0], sums[1] + counts[1]];
        }
    }
}

impl Writer {
    fn new(database: usize, seed: u64) -> Writer {
        let commands = Commands::new(seed.wrapping_mul(1_000).wrapping_add(database as u64));
        let (model, tally) = (Model::default(), Tally::default());
        Writer { database, commands, model, under_way: Vec::new(), answered: 0, tally }
    }

    fn client(&self, server: &Server) -> Option<Client> {
        let mut client = Client::connect(server.address()).ok()?;
        let selected = client.call(&args!["SELECT", self.database.to_string()]).ok()?;
        assert_eq!(selected, Reply::ok());
        Some(client)
    }

    /// Err: an answer was wrong.
    fn write_until_broken(&mut self, server: &Server, answered: &AtomicUsize) -> Result<(), String> {
        let Some(mut client) = self.client(server) else { return Ok(()) };
        loop {
            let wanted = self.commands.random.random_range(1..=PIPELINE_MAX);
            while self.under_way.len() < wanted {
                let commands = self.commands.next(&self.model);
                self.under_way.extend(commands);
            }
            if client.send_all(self.under_way.iter().map(Vec::as_slice)).is_err() {
                return Ok(());
            }
            for at in 0..self.under_way.len() {
                let Ok(reply) = client.read() else {
                    self.under_way.drain(..at);
                    return Ok(());
                };
                self.answered(at, &reply)?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            self.under_way.clear();
        }
    }

    fn answered(&mut self, at: usize, reply: &Reply) -> Result<(), String> {
        self.answered += 1;
        let command = &self.under_way[at];
        let is_right = match self.model.run(command) {
            Ok(Answer::Is(ref expected)) if expected == reply => return Ok(()),
            Ok(Answer::Any) if reply.error_text().is_empty() => return Ok(()),
            Err(text) if reply.error_text().starts_with(text) => return Ok(()),
            other => other,
        };
        // Whether what ends soon is there yet is not known here.
        if command.get(1).is_some_and(|key| key.starts_with(b"fading")) && reply.error_text().is_empty() {
            return Ok(());
        }
        let expected = match is_right {
            Ok(Answer::Is(expected)) => render(&expected),
            other => format!("{other:?}"),
        };
        let short = |text: String| text.chars().take(1_000).collect::<String>();
        Err(format!("{}: {} instead of {}", line(command), short(render(reply)), short(expected)))
    }

    /// Compares all keys, and goes on from what is there.
    fn check(&mut self, server: &Server) -> Result<(), String> {
        let mut client = self.client(server).expect("it has just started");
        client.set_timeout(Duration::from_secs(60));
        let (found, read_ms) = read_all(&mut client, &mut self.commands.random)?;
        let lives = Lives::new(&self.model, &self.under_way, &found);
        self.model = lives.settle(&found, &read_ms, &mut self.tally)?;
        self.under_way.clear();
        for value in found.values() {
            self.tally.found.entry(value.data.kind()).or_default()[usize::from(value.data.is_large())] += 1;
        }
        Ok(())
    }
}

fn line(command: &[Vec<u8>]) -> String {
    let words = command.iter().take(12).map(|arg| arg[..arg.len().min(30)].escape_ascii().to_string());
    format!("{}, {} arguments", words.collect::<Vec<_>>().join(" "), command.len())
}

/// What each key holds while commands are under way, and which command made it so.
struct Lives<'a> {
    /// By key: the number of the command, from 1; 0 is what was answered before.
    lives: BTreeMap<Blob, Vec<(usize, Option<Value>)>>,
    commands: &'a [Args],
    /// By command: the state of each key that it names, as it finds it.
    seen: Vec<Vec<(Blob, usize)>>,
}

impl<'a> Lives<'a> {
    fn new(model: &Model, commands: &'a [Args], found: &BTreeMap<Blob, Value>) -> Lives<'a> {
        let mut model = model.clone();
        let first = |model: &Model, key: &Blob| (0, model.keys.get(key).cloned());
        let mut lives: BTreeMap<Blob, Vec<(usize, Option<Value>)>> = model
            .keys
            .keys()
            .chain(found.keys())
            .map(|key| (key.clone(), vec![first(&model, key)]))
            .collect();
        let mut seen = Vec::new();
        for (number, command) in (1..).zip(commands) {
            let named = command.iter().filter_map(|arg| lives.get_key_value(&arg[..]));
            seen.push(named.map(|(key, life)| (key.clone(), life.len() - 1)).collect());
            // What the model says of an error was compared where it was answered.
            let _answer = model.run(command);
            for key in model.keys.keys() {
                lives.entry(key.clone()).or_insert_with(|| vec![(0, None)]);
            }
            for (key, life) in &mut lives {
                let now = model.keys.get(key);
                if life.last().is_some_and(|(_, last)| last.as_ref() != now) {
                    life.push((number, now.cloned()));
                }
            }
        }
        Lives { lives, commands, seen }
    }

    /// The first and the last state of each key that look like what was found.
    fn spans(
        &self,
        found: &BTreeMap<Blob, Value>,
        read_ms: &Range<u64>,
    ) -> Result<BTreeMap<&Blob, (usize, usize)>, String> {
        let span = |(key, life): (&'_ Blob, &Vec<(usize, Option<Value>)>)| {
            let here = found.get(key);
            let alike = |at: &usize| is_alike(life[*at].1.as_ref(), here, read_ms);
            let mut alikes = (0..life.len()).filter(alike);
            let first = alikes.next()?;
            Some((first, alikes.next_back().unwrap_or(first)))
        };
        let mut spans = BTreeMap::new();
        for (key, life) in &self.lives {
            let Some(span) = span((key, life)) else { return Err(self.never_written(key, found.get(key))) };
            spans.insert(key, span);
        }
        Ok(spans)
    }

    fn never_written(&self, key: &Blob, found: Option<&Value>) -> String {
        let outline = |value: Option<&Value>| {
            value.map_or("absent".to_owned(), |value| {
                format!("{} until {:?}", value.data.outline(), value.expire_ms)
            })
        };
        let mut text = format!("{} is {}\nwhich was never so. It was", key.escape_ascii(), outline(found));
        for (number, state) in &self.lives[key] {
            let command =
                number.checked_sub(1).map_or("answered before".to_owned(), |at| line(&self.commands[at]));
            text += &format!("\n  {command}: {}", outline(state.as_ref()));
        }
        text
    }

    fn settle(
        &self,
        found: &BTreeMap<Blob, Value>,
        read_ms: &Range<u64>,
        tally: &mut Tally,
    ) -> Result<Model, String> {
        let spans = self.spans(found, read_ms)?;
        for (number, command) in (1..).zip(self.commands) {
            let changed = self
                .lives
                .iter()
                .filter_map(|(key, life)| Some((key, life.iter().position(|(by, _)| *by == number)?)));
            let changed: Vec<(&Blob, usize)> = changed.collect();
            let there = changed.iter().find(|(key, at)| spans[*key].0 >= *at);
            let gone = changed.iter().find(|(key, at)| spans[*key].1 < *at);
            tally.kept += usize::from(there.is_some());
            tally.lost += usize::from(there.is_none() && gone.is_some());
            let Some((there, _)) = there else { continue };
            if let Some((gone, _)) = gone {
                let (there, gone) = (there.escape_ascii(), gone.escape_ascii());
                return Err(format!("half of {}: there in {there}, gone in {gone}", line(command)));
            }
            let lost = self.seen[number - 1].iter().find(|(key, at)| spans[key].1 < *at);
            if let Some((lost, _)) = lost {
                return Err(format!(
                    "{} is there, but not what it saw in {}",
                    line(command),
                    lost.escape_ascii()
                ));
            }
        }
        let mut model = Model::default();
        for (key, life) in &self.lives {
            model.keys.extend(life[spans[key].1].1.clone().map(|value| (key.clone(), value)));
        }
        Ok(model)
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    /// An orderly stop: the next start finds everything in files.
    Stop,
}

/// How long the writers write: until so many commands are answered, and then for a moment.
#[derive(Clone, Copy, Debug)]
struct Load {
    answered: usize,
    more: Duration,
}

const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

fn round(server: &mut Server, writers: &mut [Writer], load: Load, end: End) -> Result<(), String> {
    let answered = AtomicUsize::new(0);
    let ended = thread::scope(|scope| {
        let (server, answered, began) = (&*server, &answered, Instant::now());
        let writers: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(move || writer.write_until_broken(server, answered)))
            .collect();
        // Each of them ends early if it finds something wrong.
        let go_on = || {
            writers.iter().all(|writer| !writer.is_finished())
                && answered.load(Ordering::Relaxed) < load.answered
                && began.elapsed() < LOAD_TIMEOUT
        };
        while go_on() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(load.more);
        server.signal(if matches!(end, End::Kill) { "KILL" } else { "TERM" });
        let ended =
            writers.into_iter().map(|writer| writer.join().expect("a writer reports, it does not panic"));
        ended.collect::<Result<Vec<()>, String>>()
    });
    ended.map_err(|e| format!("before the end: {e}"))?;
    match end {
        End::Kill => server.kill9(),
        End::Stop => drop(server.wait_for_end()),
    }
    server.restart();
    let server = &*server;
    thread::scope(|scope| {
        let checks: Vec<_> = writers
            .iter_mut()
            .map(|writer| {
                scope.spawn(|| writer.check(server).map_err(|e| format!("database {}: {e}", writer.database)))
            })
            .collect();
        checks.into_iter().try_for_each(|check| check.join().expect("a check reports, it does not panic"))
    })
}

fn crash(policy: &'static str, shards: u16, seed: u64, enough: impl Fn(usize, Duration) -> bool) -> Tally {
    let mut server = Server::start(Options::shards(shards).appendfsync(policy));
    let mut random = StdRng::seed_from_u64(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|database| Writer::new(database, seed)).collect();
    let began = Instant::now();
    let mut rounds = 0;
    while !enough(rounds, began.elapsed()) {
        rounds += 1;
        let load = Load {
            answered: random.random_range(0..ROUND_MAX),
            more: Duration::from_micros(random.random_range(0..100_000)),
        };
        let end = if random.random_bool(0.25) { End::Stop } else { End::Kill };
        if let Err(e) = round(&mut server, &mut writers, load, end) {
            panic!("{policy}, {shards} shards, seed {seed}, round {rounds}, {end:?} after {load:?}: {e}");
        }
    }
    let answered: usize = writers.iter().map(|writer| writer.answered).sum();
    assert!(answered > 100, "the load wrote nothing");
    let mut tally = Tally::default();
    writers.iter().for_each(|writer| tally.add(&writer.tally));
    println!(
        "{policy}, {shards} shards, seed {seed}: {rounds} rounds, {answered} commands answered; of those \
         without an answer {} were there, {} not; found, small and large: {:?}",
        tally.kept, tally.lost, tally.found
    );
    tally
}

/// Commands of all writers in one round.
const ROUND_MAX: usize = 1_500;
const SHORT_ROUNDS: usize = 3;

fn crash_briefly(policy: &'static str, seed: u64) {
    for shards in [1, 2] {
        crash(policy, shards, seed + u64::from(shards), |rounds, _| rounds == SHORT_ROUNDS);
    }
}

#[test]
fn collections_survive_crashes_always() {
    crash_briefly("always", 0);
}

#[test]
fn collections_survive_crashes_everysec() {
    crash_briefly("everysec", 2);
}

#[test]
fn collections_survive_crashes_no_sync() {
    crash_briefly("no", 4);
}

/// `HAYPILE_SEED` chooses the first seed, else every run has another; `HAYPILE_CRASH_SECONDS` says how long.
#[test]
#[ignore = "minutes"]
fn collections_survive_crashes_long() {
    let from = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = from("HAYPILE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let limit = Duration::from_secs(from("HAYPILE_CRASH_SECONDS").unwrap_or(300));
    let mut tally = Tally::default();
    for (at, policy) in ["always", "everysec", "no"].into_iter().enumerate() {
        for shards in [1, 2] {
            let seed = seed + 2 * at as u64 + u64::from(shards);
            tally.add(&crash(policy, shards, seed, |_, spent| spent > limit / 6));
        }
    }
    assert!(tally.kept > 0 && tally.lost > 0, "no command was cut short: {} {}", tally.kept, tally.lost);
    for kind in ["hash", "list", "set", "sorted set", "stream", "text"] {
        let [small, large] = tally.found.get(kind).copied().unwrap_or_default();
        assert!(small > 0 && large > 0, "{kind}: {small} small ones, {large} large ones");
    }
}

/// What is found, after commands of which only the first few were answered.
fn verdict(commands: &[&str], answered: usize, found: &[&str]) -> Result<(), String> {
    let command = |line: &&str| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Args>();
    let run = |lines: &[&str]| {
        let mut model = Model::default();
        lines.iter().for_each(|line| drop(model.run(&command(line)).expect("no error")));
        model
    };
    let under_way: Vec<Args> = commands[answered..].iter().map(command).collect();
    let found = run(found).keys;
    let lives = Lives::new(&run(&commands[..answered]), &under_way, &found);
    lives.settle(&found, &(1_000..1_100), &mut Tally::default()).map(drop)
}

#[test]
fn a_lost_or_invented_or_halved_command_is_seen() {
    let refuses = |commands: &[&str], answered, found: &[&str], why: &str| {
        let refused = verdict(commands, answered, found).expect_err(why);
        assert!(refused.contains(why), "{refused}");
    };
    let pushes = ["RPUSH a 1", "RPUSH a 2", "RPUSH a 3"];
    assert_eq!(verdict(&pushes, 2, &["RPUSH a 1 2"]), Ok(()));
    assert_eq!(verdict(&pushes, 2, &["RPUSH a 1 2 3"]), Ok(()));
    refuses(&pushes, 2, &["RPUSH a 1"], "never so");
    refuses(&pushes, 1, &["RPUSH a 1 3"], "never so");
    refuses(&pushes, 2, &[], "never so");
    refuses(&pushes, 3, &["RPUSH a 1 2 3", "SADD b 1"], "never so");

    let moves = ["SADD a 1 2", "SMOVE a b 1", "SADD b 3"];
    assert_eq!(verdict(&moves, 1, &["SADD a 1 2"]), Ok(()));
    assert_eq!(verdict(&moves, 1, &["SADD a 2", "SADD b 1"]), Ok(()));
    refuses(&moves, 1, &["SADD a 1 2", "SADD b 1"], "half of SMOVE");
    refuses(&moves, 1, &["SADD a 2"], "half of SMOVE");

    let sees = ["SADD a 1", "SADD a 2", "SUNIONSTORE b a"];
    assert_eq!(verdict(&sees, 1, &["SADD a 1 2", "SADD b 1 2"]), Ok(()));
    refuses(&sees, 1, &["SADD a 1", "SADD b 1 2"], "not what it saw");

    let ends = ["HSET a f 1 g 1", "HPEXPIREAT a 1050 FIELDS 1 f", "HPEXPIREAT a 2000 FIELDS 1 g"];
    let kept = "HPEXPIREAT a 2000 FIELDS 1 g";
    assert_eq!(verdict(&ends, 3, &["HSET a g 1", kept]), Ok(()), "it may have ended while it was read");
    assert_eq!(verdict(&ends, 3, &["HSET a f 1 g 1", ends[1], kept]), Ok(()));
    refuses(&ends, 3, &["HSET a f 1", ends[1]], "never so");
    refuses(&["SET a 1 PXAT 900"], 1, &["SET a 1 PXAT 900"], "never so");
}
