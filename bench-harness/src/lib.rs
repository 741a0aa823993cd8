//! haypile's load generator: `haypile bench`. It knows Redis's protocol from the outside and nothing
//! of haypile, so that what it says of one server it could say of any.
//!
//! From the outside in: `options` (the command line), `workload` over `template` and `keys` (what is
//! sent), `run` over `worker` and `connection` (how), `measure` and `outcome` (what was seen), `show`
//! and `report` (for whom), `compare` (several servers).

mod compare;
mod connection;
mod keys;
mod measure;
mod options;
mod outcome;
mod process;
mod reply;
mod report;
mod run;
mod server;
mod show;
mod template;
mod worker;
mod workload;

use clap::Parser;
use options::{Action, Compare, Options};
use outcome::{Outcome, Results};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs `haypile bench` with these arguments, the program's own name first.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let command = args.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let options = Options::parse_from(args);
    let ended = match options.action {
        None => load(&options, command),
        Some(Action::Compare(ref compare)) => compare_servers(compare, command),
        Some(Action::Report { ref json, ref html }) => report(json, html).map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        // The tables say what was wrong.
        Ok(false) => ExitCode::from(2),
        Err(why) => {
            eprintln!("haypile bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn load(options: &Options, command: String) -> Result<bool, String> {
    let Options { target, load, output, command: own, .. } = options;
    if load.list {
        println!("{}", workload::names());
        return Ok(true);
    }
    let works: Vec<workload::Workload> = if own.is_empty() {
        load.tests
            .iter()
            .map(|name| workload::named(name, load.digits(), load.write_percent))
            .collect::<Result<_, _>>()?
    } else {
        vec![workload::own(own, load.digits())]
    };
    println!("{}", show::head());
    let mut runs = Vec::new();
    for work in works {
        let measured = run::run(work, target, load, !output.quiet).map_err(|why| why.to_string())?;
        println!("{}", show::lines(&measured.outcome));
        runs.push(measured);
    }
    if let Some(path) = &output.hdr_log {
        show::write_hdr_log(path, &runs).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let outcomes: Vec<Outcome> = runs.into_iter().map(|run| run.outcome).collect();
    let right = outcomes.iter().all(|outcome| outcome.errors == 0 && outcome.unanswered == 0);
    if let Some(path) = &output.json {
        write_json(path, &Results::Run { command, outcomes })?;
    }
    Ok(right)
}

fn compare_servers(options: &Compare, command: String) -> Result<bool, String> {
    let tests = compare::compare(options, |test| print!("{}", show::comparison(test)))
        .map_err(|why| why.to_string())?;
    let right = tests
        .iter()
        .flat_map(|test| &test.sides)
        .flat_map(|side| &side.turns)
        .all(|turn| turn.outcome.errors == 0);
    if let Some(path) = &options.output.json {
        write_json(path, &Results::Comparison { command, tests })?;
    }
    Ok(right)
}

fn write_json(path: &Path, results: &Results) -> Result<(), String> {
    show::write_json(path, results).map_err(|error| format!("{}: {error}", path.display()))
}

fn report(json: &Path, html: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(json).map_err(|error| format!("{}: {error}", json.display()))?;
    let results = serde_json::from_str(&text)
        .map_err(|error| format!("{} is not what --json writes: {error}", json.display()))?;
    let page = report::page(&results).map_err(|error| format!("no plot: {error}"))?;
    std::fs::write(html, page).map_err(|error| format!("{}: {error}", html.display()))
}
