//! Files, flags and CONFIG, from outside.

use super::*;
use crate::error::ClientError;
use crate::limits::MEMORY_BUDGET_MIN_BYTES;
use std::io::Write;

fn load(args: &[&str]) -> Result<Loaded, ConfigError> {
    Config::load(args.iter().map(OsString::from))
}

fn file(ending: &str, text: &str) -> tempfile::TempPath {
    let mut file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.into_temp_path()
}

fn load_text(ending: &str, text: &str, flags: &[&str]) -> Result<Loaded, ConfigError> {
    let path = file(ending, text);
    load(&[&["-c", path.to_str().unwrap()], flags].concat())
}

fn change(config: &mut Config, pairs: &[(&str, &str)]) -> Result<Vec<&'static str>, String> {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    set(config, &pairs).map(|changed| changed.0).map_err(|ClientError(text)| text.into_owned())
}

#[test]
fn nothing_given_is_a_working_node() {
    let Loaded { config, ignored, file } = load(&[]).unwrap();
    assert_eq!((config.port, config.bind.len(), file), (9221, 1, None));
    assert!(config.bind[0].ip.is_loopback() && ignored.is_empty());
    assert!(config.cores >= 1 && config.memory_budget >= MEMORY_BUDGET_MIN_BYTES);
    assert_eq!(config.data_dir, Path::new("./haypile-data"));
    assert_eq!(config.slots(), SlotHash::Crc32 { slots: 1024 });
    assert_eq!(config.core_port(0), None);
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "port = 7000\ntimeout_s = 9\nmemory_budget = \"512MiB\"\nshard_aware_ports = true\n";
    let config = load_text(".toml", text, &["--port", "7001", "--slot-hash=crc16"]).unwrap().config;
    assert_eq!((config.port, config.timeout_s, config.tcp_keepalive_s), (7001, 9, 300));
    assert_eq!((config.memory_budget, config.core_port(0)), (512 << 20, Some(7002)));
    assert_eq!(config.slots(), SlotHash::Crc16);
}

#[test]
fn every_flag_works() {
    let args = "--port 1 --bind 0.0.0.0 --data-dir /d --cores 2 --shards 4 --memory-budget 2GiB \
                --appendfsync always --databases 3 --requirepass p --instance-mode classic \
                --default-slot-num 8 --slot-hash crc32 --log-format json --loglevel debug \
                --shard-aware-ports on --shard-aware-port-base 100 --maxclients 5 --timeout 6 \
                --tcp-keepalive 7 --binlog-segment-bytes 1MiB --binlog-retention-bytes 2mb \
                --binlog-retention-hours 8 --cold-threads 9 --pin-cpus 0,2-3";
    let config = load(&args.split_whitespace().collect::<Vec<_>>()).unwrap().config;
    let shown: Vec<String> =
        PARAMS.iter().map(|param| format!("{}={}", param.flag, param.show(&config))).collect();
    for expect in [
        "port=1",
        "bind=0.0.0.0",
        "data-dir=/d",
        "cores=2",
        "shards=4",
        "memory-budget=2147483648",
        "appendfsync=always",
        "databases=3",
        "requirepass=p",
        "instance-mode=classic",
        "default-slot-num=8",
        "log-format=json",
        "loglevel=debug",
        "shard-aware-ports=yes",
        "shard-aware-port-base=100",
        "maxclients=5",
        "timeout=6",
        "tcp-keepalive=7",
        "binlog-segment-bytes=1048576",
        "binlog-retention-bytes=2097152",
        "binlog-retention-hours=8",
        "cold-threads=9",
        "pin-cpus=0,2-3",
    ] {
        assert!(shown.iter().any(|line| line == expect), "{expect} not in {shown:?}");
    }
    assert_eq!(config.core_port(1), Some(101));
}

#[test]
fn mistakes_in_a_file_name_the_file_the_line_and_a_way_out() {
    for (text, line, part) in [
        ("# x\nprot = 1\n", 2, "did you mean `port`?"),
        ("port = 1\n\nmaxmemory = 5\n", 3, "called `memory_budget`"),
        ("port = 70000\n", 1, "port: argument must be between 1 and 65535 inclusive"),
        ("port = \"7000\"\n", 1, "port: expected an integer"),
        ("port = 1.5\n", 1, "port: expected an integer"),
        ("port = 1\nport = 2\n", 2, "duplicate"),
        ("appendfsync = \"sometimes\"\n", 1, "one of the following: everysec, always, no"),
        ("shard_aware_ports = \"on\"\n", 1, "expected true or false"),
        ("memory_budget = \"lots\"\n", 1, "memory value"),
        ("bind = [1]\n", 1, "expected a string"),
        ("[network]\nport = 1\n", 1, "unknown key `network`"),
        ("port = \n", 1, ""),
        ("pin_cpus = \"3-1\"\n", 1, "'3-1'"),
    ] {
        let error = load_text(".toml", text, &[]).unwrap_err();
        let ConfigError::Line { line: at, why, .. } = &error else { panic!("{text}: {error:?}") };
        assert_eq!(*at, line, "{text}: {error}");
        assert!(why.contains(part), "{text}: {error}");
        assert!(error.to_string().contains(&format!(".toml, line {line}: ")), "{error}");
    }
    let error = load(&["-c", "/nonexistent/haypile.toml"]).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/haypile.toml: No such file"), "{error}");
}

#[test]
fn mistakes_on_the_command_line_are_refused() {
    let usage = load(&["--prot", "1"]).unwrap_err();
    assert!(matches!(usage, ConfigError::Usage(_)) && usage.to_string().contains("--port"), "{usage}");
    let error = load(&["--port", "x"]).unwrap_err().to_string();
    assert_eq!(error, "--port x: argument couldn't be parsed into an integer");
    let long = "s".repeat(600);
    assert!(!load(&["--requirepass", &long]).unwrap_err().to_string().contains("sss"));
    for (args, part) in [
        (&["--memory-budget", "1MiB"][..], "at least"),
        (&["--instance-mode", "sharding", "--replicaof", "h 1"], "SLOTSSLAVEOF"),
        (&["--cores", "3", "--pin-cpus", "0-1"], "only 2 CPUs"),
        (&["--port", "65535", "--shard-aware-ports", "on"], "65535"),
        (&["--port", "7000", "--shard-aware-ports", "on", "--shard-aware-port-base", "7000"], "`port`"),
    ] {
        let error = load(args).unwrap_err();
        assert!(matches!(error, ConfigError::Conflict(_)) && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn help_and_the_default_file_show_every_parameter() {
    let asked = |flag| match load(&[flag]) {
        Err(ConfigError::Asked(text)) => text,
        other => panic!("{other:?}"),
    };
    let (help, printed) = (asked("--help"), asked("--print-config"));
    for param in PARAMS {
        assert!(help.contains(&format!("--{}", param.flag)), "{}", param.flag);
    }
    // With every key switched on, the printed file must mean the same as no file at all.
    let keys: String = printed
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|l| l.contains(" = "))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(keys.lines().count(), PARAMS.len(), "{keys}");
    let mut config = Config { port: 1, databases: 99, ..Config::default() };
    file::apply(&keys, Format::Toml, &mut config).unwrap_or_else(|e| panic!("{e:?}\n{keys}"));
    assert_eq!(config, Config::default());
    assert!(load_text(".toml", &printed, &[]).is_ok());
}

const REDIS_FILE: &str = r#"# A primary of the shop's sessions
bind 127.0.0.1 -::1
protected-mode yes
port 6380
tcp-backlog 1024
timeout 30
tcp-keepalive 60
daemonize yes
loglevel verbose
databases 4
save 900 1
save 300 10
requirepass "open \"sesame\""
rename-command FLUSHALL ""
maxclients 2000
maxmemory 512mb
maxmemory-policy allkeys-lru
appendonly yes
APPENDFSYNC always
no-appendfsync-on-rewrite no
client-output-buffer-limit normal 64mb 0 0
client-output-buffer-limit replica 256mb 64mb 60
slowlog-log-slower-than 5000
cluster-enabled no
min-replicas-to-write 0
tls-port 6390
replicaof 10.0.0.1 6379
hz 10
"#;

#[test]
fn a_redis_file_is_understood() {
    let Loaded { config, ignored, .. } = load_text(".conf", REDIS_FILE, &["--port", "6381"]).unwrap();
    assert_eq!((config.port, config.tcp_backlog, config.timeout_s, config.databases), (6381, 1024, 30, 4));
    assert_eq!(config.requirepass.as_bytes(), b"open \"sesame\"");
    assert_eq!((config.memory_budget, config.appendfsync), (512 << 20, Fsync::Always));
    assert_eq!(config.client_output_buffer_limit.normal.hard_bytes, 64 << 20);
    assert_eq!((config.loglevel, config.bind.len()), (LogLevel::Verbose, 2));
    let loud: Vec<&str> = ignored.iter().filter(|i| i.danger.is_some()).map(|i| i.key.as_str()).collect();
    assert_eq!(loud, ["rename-command", "maxmemory-policy", "tls-port"]);
    assert_eq!(config.primary(), Ok(Some(("10.0.0.1".to_owned(), 6379))));
    let quiet: Vec<&str> = ignored.iter().filter(|i| i.danger.is_none()).map(|i| i.key.as_str()).collect();
    let expect = "protected-mode daemonize save save appendonly no-appendfsync-on-rewrite \
                  cluster-enabled hz";
    assert_eq!(quiet, expect.split_whitespace().collect::<Vec<_>>());
    assert_eq!(
        ignored[0].to_string(),
        "configuration, line 3: `protected-mode` has no meaning here and is ignored"
    );
    assert!(ignored.iter().any(|i| i.to_string().contains("`tls-port` is NOT in force: TLS is not")));
}

const PIKA_FILE: &str = "\
# Pika of the shop
port : 9222
thread-num : 1
thread-pool-size : 12
log-path : ./log/
db-path : /var/lib/pika/db
write-buffer-size : 268435456
timeout : 60
requirepass : secret word
masterauth :
userpass : weak
userblacklist : FLUSHALL,CONFIG
instance-mode : classic
databases : 1
default-slot-num : 512
expire-logs-days : 2
expire-logs-nums : 10
binlog-file-size : 104857600
maxclients : 20000
loglevel : info
max-client-response-size : 1073741824
slaveof : 10.0.0.1:9221
slotmigrate : no
";

#[test]
fn a_pika_file_is_understood() {
    let Loaded { config, ignored, .. } = load_text(".conf", PIKA_FILE, &[]).unwrap();
    assert_eq!((config.port, config.timeout_s, config.maxclients), (9222, 60, 20_000));
    assert_eq!(
        (config.instance_mode, config.slots()),
        (InstanceMode::Classic, SlotHash::Crc32 { slots: 512 })
    );
    assert_eq!((config.binlog_retention_hours, config.binlog_retention_bytes), (48, 1_048_576_000));
    assert_eq!(config.requirepass.as_bytes(), b"secret word");
    assert_eq!(config.data_dir, Path::new("/var/lib/pika/db"));
    assert_eq!(
        (config.loglevel, config.client_output_buffer_limit.normal.hard_bytes),
        (LogLevel::Notice, 1 << 30)
    );
    assert_eq!(config.cores, load(&[]).unwrap().config.cores, "thread-num is not a number of CPUs");
    let loud: Vec<&str> = ignored.iter().filter(|i| i.danger.is_some()).map(|i| i.key.as_str()).collect();
    assert_eq!(loud, ["userpass", "userblacklist"]);
    assert_eq!(config.primary(), Ok(Some(("10.0.0.1".to_owned(), 9221))));
}

#[test]
fn mistakes_in_foreign_files_are_refused_with_their_line() {
    for (text, line, part) in [
        ("port 1\ninclude /etc/other.conf\n", 2, "one file"),
        ("port abc\n", 1, "port: argument couldn't be parsed into an integer"),
        ("port 1\nrequirepass \"open\n", 2, "unbalanced quotes"),
        ("port : 1\nnonsense\n", 2, "expected `key : value`"),
        ("port : 1\nexpire-logs-nums : many\n", 2, "expire-logs-nums: argument couldn't"),
    ] {
        match load_text(".conf", text, &[]).unwrap_err() {
            ConfigError::Line { line: at, why, .. } => {
                assert!(at == line && why.contains(part), "{text}: {why}")
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn config_get_answers_all_names_that_match() {
    let config = load(&["--memory-budget", "64MiB"]).unwrap().config;
    assert_eq!(get(&config, b"MaxMemory"), [("maxmemory", "67108864".to_owned())]);
    let names: Vec<&str> = get(&config, b"max*").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["maxclients", "maxmemory", "maxmemory-policy"]);
    assert_eq!(get(&config, b"appendonly"), [("appendonly", "yes".to_owned())]);
    assert_eq!(get(&config, b"save"), [("save", String::new())]);
    assert_eq!(get(&config, b"binlog-retention-hours")[0].1, "168");
    assert_eq!(get(&config, b"dir"), [("dir", "./haypile-data".to_owned())]);
    assert!(get(&config, b"nosuch").is_empty());
}

/// The texts were taken from redis-server 7.0.15.
#[test]
fn config_set_refuses_in_redis_words() {
    let failed = |name: &str, why: &str| {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
    };
    let unknown = |name: &str| format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'");
    let not_a_number = "argument couldn't be parsed into an integer";
    let config = Config::default();
    for (pairs, expect) in [
        (&[("nosuch", "1")][..], unknown("nosuch")),
        (&[("timeout", "4"), ("nosuch", "3")], unknown("nosuch")),
        (&[("No SuCh'", "1")], unknown("No SuCh'")),
        (&[("a\r\n+OK", "1")], unknown("a  +OK")),
        (&[("databases", "x")], failed("databases", "can't set immutable config")),
        (&[("databases", "3"), ("nosuch", "3")], failed("databases", "can't set immutable config")),
        (&[("APPENDONLY", "no")], failed("APPENDONLY", "can't set immutable config")),
        (&[("dir", "/x")], failed("dir", "can't set protected config")),
        (&[("timeout", "x")], failed("timeout", not_a_number)),
        (&[("TIMEOUT", "x")], failed("timeout", not_a_number)),
        (&[("timeout", "x"), ("maxclients", "y")], failed("timeout", not_a_number)),
        (&[("timeout", "-1")], failed("timeout", "argument must be between 0 and 2147483647 inclusive")),
        (&[("maxclients", "0")], failed("maxclients", "argument must be between 1 and 4294967295 inclusive")),
        (&[("timeout", "x"), ("TIMEOUT", "5")], failed("TIMEOUT", "duplicate parameter")),
        (&[("timeout", "x"), ("timeout", "5"), ("nosuch", "2")], failed("timeout", "duplicate parameter")),
        (
            &[("appendfsync", "foo")],
            failed("appendfsync", "argument(s) must be one of the following: everysec, always, no"),
        ),
        (&[("loglevel", "debug")], failed("loglevel", "can't set immutable config")),
        (
            &[("proto-max-bulk-len", "100")],
            failed(
                "proto-max-bulk-len",
                "argument must be between 1048576 and 9223372036854775807 inclusive",
            ),
        ),
        (
            &[("client-query-buffer-limit", "1.5gb")],
            failed("client-query-buffer-limit", "argument must be a memory value"),
        ),
        (
            &[("client-output-buffer-limit", "normal 1 2")],
            failed("client-output-buffer-limit", "Wrong number of arguments in buffer limit configuration."),
        ),
    ] {
        let mut changed = config.clone();
        assert_eq!(change(&mut changed, pairs), Err(expect), "{pairs:?}");
        assert_eq!(changed, config, "{pairs:?} changed something");
    }
}

#[test]
fn config_set_changes_all_or_nothing() {
    let mut config = Config::default();
    let changed =
        change(&mut config, &[("timeout", "4"), ("AppendFsync", "ALWAYS"), ("maxclients", "10000")]);
    assert_eq!(changed, Ok(vec!["timeout_s", "appendfsync"]), "maxclients had that value before");
    assert_eq!((config.timeout_s, config.appendfsync), (4, Fsync::Always));
    let before = config.clone();
    assert!(change(&mut config, &[("timeout", "5"), ("maxclients", "x")]).is_err());
    assert_eq!(config, before);
    change(&mut config, &[("client-output-buffer-limit", "normal 1mb 2kb 3"), ("requirepass", "a b")])
        .unwrap();
    assert_eq!(
        config.client_output_buffer_limit.normal,
        OutputLimit { hard_bytes: 1 << 20, soft_bytes: 2048, soft_s: 3 }
    );
    assert!(set(&mut config, &[(&b"requirepass"[..], &b"\xff"[..])]).is_err());
}

/// What is rewritten must be read back as what holds, and all else must stay.
fn rewritten(text: &str, format: Format, pairs: &[(&str, &str)]) -> String {
    let mut config = Config::default();
    file::apply(text, format, &mut config).unwrap();
    change(&mut config, pairs).unwrap();
    let out = rewrite(&config, text, format).unwrap();
    let mut again = Config::default();
    file::apply(&out, format, &mut again).unwrap();
    assert_eq!(again, config, "{out}");
    assert_eq!(rewrite(&config, &out, format).unwrap(), out, "a second rewrite changes nothing");
    out
}

#[test]
fn rewriting_keeps_comments_and_order() {
    let text = "# mine\nport = 7000   # why\ntimeout_s=3# soon\n\nappendfsync = \"no\"\n# end";
    assert_eq!(rewritten(text, Format::Toml, &[]), text);
    let pairs =
        [("timeout", "60"), ("requirepass", "a \"b\"\n[x]\nport = 1"), ("client-query-buffer-limit", "64mb")];
    let out = rewritten(text, Format::Toml, &pairs);
    let kept = "# mine\nport = 7000   # why\ntimeout_s=60# soon\n\nappendfsync = \"no\"\n# end\n";
    assert!(out.starts_with(&format!("{kept}\n# Generated by CONFIG REWRITE\nrequirepass = ")), "{out}");
    assert!(out.ends_with("client_query_buffer_limit = \"64MiB\"\n"), "{out}");

    let out = rewritten(
        REDIS_FILE,
        Format::Redis,
        &[
            ("timeout", "31"),
            ("client-output-buffer-limit", "pubsub 1 2 3"),
            ("client-query-buffer-limit", "64mb"),
            ("requirepass", "x\ny \"z\""),
        ],
    );
    assert!(out.starts_with("# A primary of the shop's sessions\nbind 127.0.0.1 -::1\n"), "{out}");
    assert!(out.contains("\ntimeout 31\n") && out.contains("\nrequirepass \"x\\x0ay \\\"z\\\"\"\n"), "{out}");
    assert!(out.contains("\nAPPENDFSYNC always\n") && out.contains("\nsave 900 1\nsave 300 10\n"), "{out}");
    assert_eq!(out.matches("client-output-buffer-limit").count(), 1, "{out}");
    assert!(out.ends_with("\n# Generated by CONFIG REWRITE\nclient-query-buffer-limit 67108864\n"), "{out}");

    let pairs =
        [("maxclients", "5"), ("appendfsync", "always"), ("client-output-buffer-limit", "normal 1 1 1")];
    let out = rewritten(PIKA_FILE, Format::Pika, &pairs);
    assert!(
        out.contains("\nmaxclients : 5\nloglevel : info\n") && out.contains("\nappendfsync : always\n"),
        "{out}"
    );
}

#[test]
fn whom_a_node_follows_is_written_as_its_format_has_it_and_taken_out_again() {
    for (format, text, line) in [
        (Format::Redis, "port 1\n", "replicaof h 7\n"),
        (Format::Redis, "slaveof other 1\nport 1\n", "replicaof h 7\n"),
        (Format::Pika, "port : 1\nslaveof : 10.0.0.1:9\n", "slaveof : h:7\n"),
        (Format::Toml, "port = 1\n", "replicaof = \"h 7\"\n"),
    ] {
        let mut config = Config::default();
        file::apply(text, format, &mut config).unwrap();
        config.replicaof = "h 7".into();
        let out = rewrite(&config, text, format).unwrap();
        assert!(out.contains(line), "{out}");
        let mut again = Config::default();
        file::apply(&out, format, &mut again).unwrap();
        assert_eq!(again, config, "{out}");
        config.replicaof = String::new();
        let out = rewrite(&config, &out, format).unwrap();
        let mut again = Config::default();
        file::apply(&out, format, &mut again).unwrap();
        assert_eq!(again, config, "{out}");
    }
    let hostile = Config { replicaof: "a\nrequirepass x 7".into(), ..Config::default() };
    let out = rewrite(&hostile, "port 1\n", Format::Redis).unwrap();
    let mut again = Config::default();
    file::apply(&out, Format::Redis, &mut again).unwrap();
    assert!(!again.requirepass.is_set(), "{out}");
}

#[test]
fn a_value_that_the_format_cannot_hold_is_not_written() {
    let mut config = Config::default();
    change(&mut config, &[("requirepass", "x\nslaveof : evil")]).unwrap();
    let ClientError(text) = rewrite(&config, "port : 1\n", Format::Pika).unwrap_err();
    assert_eq!(text, "ERR Rewriting config file: requirepass: Pika's format cannot hold this value");
    let ClientError(text) = rewrite(&config, "port = x\n", Format::Toml).unwrap_err();
    assert!(text.starts_with("ERR Rewriting config file: line 1: "), "{text}");
}

#[test]
fn a_file_is_replaced_whole_and_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let path = file(".toml", "# mine\ntimeout_s = 3\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut config = load(&["-c", path.to_str().unwrap()]).unwrap().config;
    change(&mut config, &[("timeout", "5")]).unwrap();
    rewrite_file(&config, Some(&path)).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\ntimeout_s = 5\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(
        rewrite_file(&config, None),
        Err(ClientError::fixed("ERR The server is running without a config file"))
    );
}

#[test]
fn a_cluster_has_one_database() {
    assert_eq!(load(&["--databases", "7"]).unwrap().config.databases, 7);
    assert_eq!(load(&["--databases", "7", "--slot-hash", "crc16"]).unwrap().config.databases, 1);
}
