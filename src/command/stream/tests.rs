//! Replies of the stream commands. Expected ones are redis-server 7.0.15's, unless a test says otherwise.

use crate::command::tests::{Server, Words, find};
use crate::front::admin::testing::show;
use crate::resp::encode::{Protocol, encode};
use crate::store::tx::Scope;

/// Runs lines, each with the reply that is expected.
fn check(server: &mut Server, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(show(&server.run(line)), *expected, "{line}");
    }
}

#[test]
fn ids_follow_the_clock_and_never_go_back() {
    let mut server = Server::default();
    check(
        &mut server,
        &[
            ("XADD s * f v", "1700000000000-0"),
            ("XADD s * f v", "1700000000000-1"),
            ("XADD s 1700000000000-* f v", "1700000000000-2"),
            ("XADD s 1700000000005-* f v", "1700000000005-0"),
            ("XADD s * f v", "1700000000005-1"),
            (
                "XADD s 1700000000005-1 f v",
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ),
            ("XADD s 0-0 f v", "-ERR The ID specified in XADD must be greater than 0-0"),
            ("XADD s * f v x", "-ERR wrong number of arguments for 'xadd' command"),
            ("XADD none NOMKSTREAM * f v", "nil"),
            ("EXISTS none", ":0"),
            ("XLEN s", ":5"),
            ("XSETID s 18446744073709551615-18446744073709551615", "OK"),
            ("XADD s * f v", "-ERR The stream has exhausted the last possible ID, unable to add more items"),
        ],
    );
}

#[test]
fn an_empty_stream_keeps_what_it_knows() {
    let mut server = Server::default();
    check(
        &mut server,
        &[
            ("XADD s 1-1 a 1", "1-1"),
            ("XADD s 2-1 b 2", "2-1"),
            ("XDEL s 2-1 2-1", ":1"),
            ("XTRIM s MAXLEN 0", ":1"),
            ("EXISTS s", ":1"),
            (
                "XADD s 2-1 b 2",
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ),
            (
                "XINFO STREAM s",
                "{length: :0, radix-tree-keys: :0, radix-tree-nodes: :1, last-generated-id: 2-1, \
                 max-deleted-entry-id: 2-1, entries-added: :2, recorded-first-entry-id: 0-0, groups: :0, \
                 first-entry: nil, last-entry: nil}",
            ),
            ("XRANGE s - +", "[]"),
            ("XREAD STREAMS s 0", "nil array"),
            ("XADD s MAXLEN 0 3-1 c 3", "3-1"),
            ("XLEN s", ":0"),
            ("DEL s", ":1"),
        ],
    );
    assert_eq!(server.memory.rows.len(), 0);
}

#[test]
fn groups_share_entries_out() {
    let mut server = Server::default();
    check(
        &mut server,
        &[
            ("XGROUP CREATE s g $ MKSTREAM", "OK"),
            ("XGROUP CREATE s g 0", "-BUSYGROUP Consumer Group name already exists"),
            ("XADD s 1-1 a 1", "1-1"),
            ("XADD s 2-1 b 2", "2-1"),
            ("XADD s 3-1 c 3", "3-1"),
            ("XREADGROUP GROUP g bob COUNT 1 STREAMS s >", "{s: [[1-1, [a, 1]]]}"),
            ("XREADGROUP GROUP g eve STREAMS s s > >", "{s: [[2-1, [b, 2]], [3-1, [c, 3]]]}"),
            ("XREADGROUP GROUP g bob STREAMS s >", "nil array"),
            ("XDEL s 2-1", ":1"),
            ("XREADGROUP GROUP g eve STREAMS s 0", "{s: [[2-1, nil array], [3-1, [c, 3]]]}"),
            ("XPENDING s g", "[:3, 1-1, 3-1, [[bob, 1], [eve, 2]]]"),
            ("XPENDING s g - + 9 eve", "[[2-1, eve, :0, :1], [3-1, eve, :0, :2]]"),
            ("XPENDING s g IDLE 1 - + 9", "[]"),
            ("XAUTOCLAIM s g bob 0 0 COUNT 2 JUSTID", "[3-1, [1-1], [2-1]]"),
            ("XCLAIM s g bob 0 3-1 RETRYCOUNT 9", "[[3-1, [c, 3]]]"),
            ("XPENDING s g - + 9", "[[1-1, bob, :0, :1], [3-1, bob, :0, :9]]"),
            ("XACK s g 1-1 1-1 7", ":1"),
            (
                "XINFO GROUPS s",
                "[{name: g, consumers: :2, pending: :1, last-delivered-id: 3-1, entries-read: :3, lag: :0}]",
            ),
            (
                "XINFO CONSUMERS s g",
                "[{name: bob, pending: :1, idle: :0}, {name: eve, pending: :0, idle: :0}]",
            ),
            ("XGROUP DELCONSUMER s g bob", ":1"),
            ("XPENDING s g", "[:0, nil, nil, nil array]"),
            ("XGROUP DESTROY s g", ":1"),
            (
                "XREADGROUP GROUP g bob STREAMS s >",
                "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option",
            ),
        ],
    );
}

#[test]
fn lag_is_told_where_it_is_known() {
    let mut server = Server::default();
    (1..=9).for_each(|ms| drop(server.run(&format!("XADD s {ms}-0 f v"))));
    let mut progress = |lines: &[&str], expected: &str| {
        lines.iter().for_each(|line| drop(server.run(line)));
        let told = show(&server.run("XINFO GROUPS s"));
        assert!(told.ends_with(&format!("entries-read: {expected}}}]")), "{lines:?}: {told}");
    };
    progress(&["XGROUP CREATE s g 0"], "nil, lag: :9");
    progress(&["XREADGROUP GROUP g c COUNT 1 STREAMS s >"], ":1, lag: :8");
    progress(&["XGROUP SETID s g 4"], "nil, lag: nil");
    progress(&["XREADGROUP GROUP g c COUNT 1 STREAMS s >"], "nil, lag: nil");
    progress(&["XGROUP SETID s g 4 ENTRIESREAD 4"], ":4, lag: :5");
    progress(&["XDEL s 7-0"], ":4, lag: nil");
    progress(&["XREADGROUP GROUP g c COUNT 2 STREAMS s >"], "nil, lag: nil");
    progress(&["XREADGROUP GROUP g c STREAMS s >"], ":9, lag: :0");
    progress(&["XTRIM s MAXLEN 0"], ":9, lag: :0");
}

/// From Redis 7.4 on.
#[test]
fn plus_reads_the_last_entry() {
    let mut server = Server::default();
    check(
        &mut server,
        &[
            ("XREAD STREAMS s +", "nil array"),
            ("XADD s 1-1 a 1", "1-1"),
            ("XADD s 2-0 b 2", "2-0"),
            ("XREAD COUNT 5 STREAMS s t + 0", "{s: [[2-0, [b, 2]]]}"),
        ],
    );
}

#[test]
fn reading_several_streams_is_a_map_or_pairs() {
    let mut server = Server::default();
    server.run("XADD s 1-1 a 1");
    let reply = server.run("XREAD STREAMS t s 0 0");
    let bytes = |protocol| {
        let mut out = Vec::new();
        encode(&reply, protocol, &mut out);
        String::from_utf8(out).expect("it is text")
    };
    let entries = "*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n";
    assert_eq!(bytes(Protocol::Resp2), format!("*1\r\n*2\r\n$1\r\ns\r\n{entries}"));
    assert_eq!(bytes(Protocol::Resp3), format!("%1\r\n$1\r\ns\r\n{entries}"));
}

#[test]
fn keys_stand_behind_the_word_streams() {
    let keys = |line: &str| {
        let words = Words::new(line);
        let keys = find(&words).spec.keys.of(&words.args());
        keys.map(|keys| keys.iter().map(|key| key.arg).collect::<Vec<_>>()).map_err(|e| e.0.into_owned())
    };
    assert_eq!(keys("XREAD COUNT 1 STREAMS a b 0 0"), Ok(vec![4, 5]));
    assert_eq!(keys("XREADGROUP GROUP STREAMS c BLOCK 5 STREAMS a >"), Ok(vec![7]));
    assert_eq!(keys("XREAD BLOCK -1 STREAMS a 0"), Err("ERR timeout is negative".into()));
    assert_eq!(
        keys("XREADGROUP NOACK NOACK NOACK NOACK STREAMS a >"),
        Err("ERR Missing GROUP option for XREADGROUP".into())
    );
    assert_eq!(keys("XINFO STREAM a FULL"), Ok(vec![2]));
    assert_eq!(keys("XGROUP HELP"), Ok(vec![]));
}

#[test]
fn names_that_are_too_long_are_refused() {
    let mut server = Server::default();
    server.run("XADD s 1-1 a 1");
    server.run("XGROUP CREATE s g 0");
    let long = "x".repeat(65_536);
    for line in [
        "XGROUP CREATE s LONG 0",
        "XGROUP CREATECONSUMER s g LONG",
        "XREADGROUP GROUP g LONG STREAMS s >",
        "XCLAIM s g LONG 0 1-1 FORCE",
        "XAUTOCLAIM s g LONG 0 0",
        "XINFO CONSUMERS s LONG",
        "XPENDING s LONG",
    ] {
        let reply = show(&server.run(&line.replace("LONG", &long)));
        assert_eq!(reply, "-ERR member name is longer than 65535 bytes", "{line}");
    }
    let longest = &long[1..];
    check(&mut server, &[(&format!("XGROUP CREATECONSUMER s g {longest}"), ":1")]);
}

#[test]
fn other_types_are_refused() {
    let mut server = Server::default();
    server.ok("SET k v");
    for line in [
        "XADD k * f v",
        "XLEN k",
        "XRANGE k - +",
        "XDEL k 1",
        "XTRIM k MAXLEN 1",
        "XSETID k 1",
        "XREAD STREAMS k 0",
        "XREADGROUP GROUP g c STREAMS k >",
        "XGROUP CREATE k g 0 MKSTREAM",
        "XINFO STREAM k",
        "XACK k g 1",
        "XPENDING k g",
        "XCLAIM k g c 0 1",
        "XAUTOCLAIM k g c 0 0",
    ] {
        let reply = show(&server.run(line));
        assert!(reply.starts_with("-WRONGTYPE"), "{line}: {reply}");
    }
}

#[test]
fn much_work_leaves_the_turn() {
    let mut server = Server::default();
    (1..=200).for_each(|ms| drop(server.run(&format!("XADD s {ms} f v"))));
    for line in ["XRANGE s - +", "XTRIM s MAXLEN 1", "XADD s MAXLEN 1 * f v"] {
        let words = Words::new(line);
        let few = Scope { steps_max: 100, ..server.scope };
        let result = server.memory.run(few, |tx| (find(&words).run)(tx, &words.args())).0;
        assert!(matches!(result, Err(crate::error::Stop::Long)), "{line}");
    }
}
