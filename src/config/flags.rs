//! The command line of `haypile server`, made from the list of parameters.

use super::param::{PARAMS, Param};
use super::value::Kind;
use super::{ConfigError, toml_file};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

pub(super) struct Flags {
    pub file: Option<PathBuf>,
    pub values: Vec<(&'static Param, String)>,
}

fn command() -> Command {
    let file = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Configuration file: TOML, or one written for Redis or Pika. Flags win over it.");
    let print = Arg::new("print-config")
        .long("print-config")
        .action(ArgAction::SetTrue)
        .help("Print a configuration file with every key and its default, and do nothing else.");
    let flags = PARAMS.iter().map(|param| {
        Arg::new(param.flag)
            .long(param.flag)
            .value_name(value_name(&param.kind))
            .allow_hyphen_values(true)
            .help_heading(param.group.title())
            .help(format!("{} [{}]", toml_file::describe(param), toml_file::default_of(param)))
    });
    Command::new("haypile server")
        .bin_name("haypile server")
        .no_binary_name(true)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs a node. Every flag is also a key of the configuration file.")
        .arg(file)
        .arg(print)
        .args(flags)
}

fn value_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Integer { .. } => "N",
        Kind::Bytes { .. } => "BYTES",
        Kind::Choice(_) => "WORD",
        Kind::Switch => "on|off",
        Kind::Text => "TEXT",
    }
}

pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Flags, ConfigError> {
    let mut matches = command().try_get_matches_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ConfigError::Asked(error.to_string()),
        _ => ConfigError::Usage(error.to_string()),
    })?;
    if matches.get_flag("print-config") {
        return Err(ConfigError::Asked(toml_file::default_file()));
    }
    let file = matches.remove_one("config");
    let given = |param: &'static Param| matches.remove_one(param.flag).map(|value| (param, value));
    Ok(Flags { file, values: PARAMS.iter().filter_map(given).collect() })
}
