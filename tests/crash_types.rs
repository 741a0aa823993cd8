//! Kills the server with SIGKILL while it changes collections of every type, and compares after each restart
//! everything that every key holds with what it must hold.
//!
//! Each writer has a database of its own and sends commands in pipelines. What was answered must be there,
//! under every `appendfsync`; of what was not, each command is there whole or not at all, and none without
//! those whose work it has seen.

#[macro_use]
mod harness;
mod collections;

use collections::{Answer, Blob, Load, Model, Value, is_alike, read_all};
use harness::{Client, Options, Server, Value as Reply, render};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

const WRITERS: usize = 3;
const PIPELINE_MAX: usize = 10;

type Args = Vec<Vec<u8>>;

struct Writer {
    database: usize,
    load: Load,
    /// What has been answered.
    model: Model,
    /// Asked for and not answered.
    under_way: Vec<Args>,
    answered: usize,
}

impl Writer {
    fn new(database: usize, seed: u64) -> Writer {
        let load = Load::new(seed.wrapping_mul(1_000).wrapping_add(database as u64));
        Writer { database, load, model: Model::default(), under_way: Vec::new(), answered: 0 }
    }

    fn client(&self, server: &Server) -> Option<Client> {
        let mut client = Client::connect(server.address()).ok()?;
        let selected = client.call(&args!["SELECT", self.database.to_string()]).ok()?;
        assert_eq!(selected, Reply::ok());
        Some(client)
    }

    /// Err: an answer was wrong.
    fn write_until_broken(&mut self, server: &Server) -> Result<(), String> {
        let Some(mut client) = self.client(server) else { return Ok(()) };
        loop {
            let wanted = self.load.random.random_range(1..=PIPELINE_MAX);
            while self.under_way.len() < wanted {
                let commands = self.load.next(&self.model);
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
        let (found, read_ms) = read_all(&mut client, &mut self.load.random)?;
        self.model = Lives::new(&self.model, &self.under_way, &found).settle(&found, &read_ms)?;
        self.under_way.clear();
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

    fn settle(&self, found: &BTreeMap<Blob, Value>, read_ms: &Range<u64>) -> Result<Model, String> {
        let spans = self.spans(found, read_ms)?;
        for (number, command) in (1..).zip(self.commands) {
            let changed = self
                .lives
                .iter()
                .filter_map(|(key, life)| Some((key, life.iter().position(|(by, _)| *by == number)?)));
            let changed: Vec<(&Blob, usize)> = changed.collect();
            let there = changed.iter().find(|(key, at)| spans[*key].0 >= *at);
            let gone = changed.iter().find(|(key, at)| spans[*key].1 < *at);
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

fn round(server: &mut Server, writers: &mut [Writer], load: Duration, end: End) -> Result<(), String> {
    let ended = thread::scope(|scope| {
        let server = &*server;
        let writers: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(move || writer.write_until_broken(server))).collect();
        thread::sleep(load);
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

fn crash(policy: &'static str, shards: u16, seed: u64, enough: impl Fn(usize, Duration) -> bool) {
    let mut server = Server::start(Options::shards(shards).appendfsync(policy));
    let mut random = StdRng::seed_from_u64(seed);
    let mut writers: Vec<Writer> = (0..WRITERS).map(|database| Writer::new(database, seed)).collect();
    let began = Instant::now();
    let mut rounds = 0;
    while !enough(rounds, began.elapsed()) {
        rounds += 1;
        let load = Duration::from_millis(random.random_range(20..600));
        let end = if random.random_bool(0.25) { End::Stop } else { End::Kill };
        if let Err(e) = round(&mut server, &mut writers, load, end) {
            panic!("{policy}, {shards} shards, seed {seed}, round {rounds}, {end:?} after {load:?}: {e}");
        }
    }
    let answered: usize = writers.iter().map(|writer| writer.answered).sum();
    assert!(answered > 100, "the load wrote nothing");
    println!("{policy}, {shards} shards, seed {seed}: {rounds} rounds, {answered} commands answered");
}

const SHORT_ROUNDS: usize = 3;

#[test]
fn collections_survive_crashes_always() {
    crash("always", 1, 1, |rounds, _| rounds == SHORT_ROUNDS);
    crash("always", 2, 2, |rounds, _| rounds == SHORT_ROUNDS);
}

#[test]
fn collections_survive_crashes_everysec() {
    crash("everysec", 1, 3, |rounds, _| rounds == SHORT_ROUNDS);
    crash("everysec", 2, 4, |rounds, _| rounds == SHORT_ROUNDS);
}

#[test]
fn collections_survive_crashes_no_sync() {
    crash("no", 1, 5, |rounds, _| rounds == SHORT_ROUNDS);
    crash("no", 2, 6, |rounds, _| rounds == SHORT_ROUNDS);
}

/// `HAYPILE_SEED` chooses the first seed, else every run has another; `HAYPILE_CRASH_SECONDS` says how long.
#[test]
#[ignore = "minutes"]
fn collections_survive_crashes_long() {
    let from = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = from("HAYPILE_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let limit = Duration::from_secs(from("HAYPILE_CRASH_SECONDS").unwrap_or(300));
    for (at, policy) in ["always", "everysec", "no"].into_iter().enumerate() {
        for shards in [1, 2] {
            let seed = seed + 2 * at as u64 + u64::from(shards);
            crash(policy, shards, seed, |_, spent| spent > limit / 6);
        }
    }
}
