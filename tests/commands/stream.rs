//! Streams, their groups and consumers. Ids are given, not taken from the clock; idle times are either
//! none or far away, so that the clock decides nothing. Nothing is trimmed approximately.

use super::grammar::Line;
use super::{Generator, Step, Words};
use rand::Rng;

pub const COMMANDS: &[Line] = &[
    (24, "XADD <xkey> { NOMKSTREAM ; MAXLEN|MAXLEN|MAXLEN|MINID [ = ] <n> } <newid> ( <m> <v> )+"),
    (2, "XADD <xkey> { MINID [ = ] <id> } <id> <m> <v>"),
    (1, "XADD <xkey> [ MAXLEN ~ 100000 ] [ LIMIT <n> ] * <m> <v>"),
    (2, "XLEN <xkey>"),
    (5, "XRANGE <xkey> <from> <to> [ COUNT <n> ]"),
    (5, "XREVRANGE <xkey> <to> <from> [ COUNT <n> ]"),
    (4, "XREAD [ COUNT <n> ] STREAMS <xkey> <id>|$"),
    (3, "XREAD [ COUNT <n> ] STREAMS <xkey> <xkey> <id> <id>"),
    (1, "XREAD [ COUNT <n> ] STREAMS <xkey> <xkey> <id>"),
    (1, "XREAD BLOCK <wait_ms> [ COUNT <n> ] STREAMS <xkey> <id>|$"),
    (1, "XREADGROUP GROUP <group> <consumer> { BLOCK <wait_ms> ; COUNT <n> ; NOACK } STREAMS <xkey> >|<id>"),
    (7, "XDEL <xkey> ( <id> )+"),
    (4, "XTRIM <xkey> MAXLEN [ = ] <n> [ LIMIT <n> ]"),
    (3, "XTRIM <xkey> MINID [ = ] <id>"),
    (1, "XTRIM <xkey> MAXLEN ~ 100000 [ LIMIT <n> ]"),
    (2, "XSETID <xkey> <id> { ENTRIESADDED <n> ; MAXDELETEDID <id> }"),
    (7, "XGROUP CREATE <xkey> <group> <id>|$|0 { MKSTREAM ; ENTRIESREAD <n> }"),
    (2, "XGROUP SETID <xkey> <group> <id>|$|0 { ENTRIESREAD <n> }"),
    (1, "XGROUP DESTROY <xkey> <group>"),
    (2, "XGROUP CREATECONSUMER|DELCONSUMER <xkey> <group> <consumer>"),
    (14, "XREADGROUP GROUP <group> <consumer> { COUNT <n> ; NOACK } STREAMS <xkey> >"),
    (4, "XREADGROUP GROUP <group> <consumer> { COUNT <n> ; NOACK } STREAMS <xkey> <id>|$"),
    (2, "XREADGROUP GROUP <group> <consumer> { COUNT <n> ; NOACK } STREAMS <xkey> <xkey> > >|<id>"),
    (6, "XACK <xkey> <group> ( <id> )+"),
    (4, "XPENDING <xkey> <group>"),
    (6, "XPENDING <xkey> <group> [ IDLE <idle> ] <from> <to> <n> [ <consumer> ]"),
    (
        6,
        "XCLAIM <xkey> <group> <consumer> <idle> ( <id> )+ \
         { IDLE <idle> ; TIME <time> ; RETRYCOUNT <n> ; FORCE ; JUSTID ; LASTID <id> }",
    ),
    (4, "XAUTOCLAIM <xkey> <group> <consumer> <idle> <id> { COUNT <n> ; JUSTID }"),
    (3, "XINFO STREAM <xkey>"),
    (4, "XINFO STREAM <xkey> FULL [ COUNT <n> ]"),
    (3, "XINFO GROUPS <xkey>"),
    (3, "XINFO CONSUMERS <xkey> <group>"),
    (2, "OBJECT ENCODING <xkey>"),
    (1, "DEL <xkey>"),
];

impl Generator {
    /// Many entries one after the other.
    pub fn growing_stream(&mut self) -> Words {
        let mut key = Words::new();
        self.terminal("xkey", &mut key);
        for _ in 0..self.rng.random_range(50..250) {
            let mut args = vec![b"XADD".to_vec(), key[0].clone()];
            for name in ["newid", "m", "v"] {
                self.terminal(name, &mut args);
            }
            let step = Step::new(self.connection, args);
            self.queued.push_back(step);
        }
        vec![b"XLEN".to_vec(), key.remove(0)]
    }
}
