//! Sets, of integers and of anything.

use super::grammar::Line;

pub const COMMANDS: &[Line] = &[
    (9, "SADD <skey> ( <m> )+"),
    (3, "SADD <skey> ( <m> )#"),
    (6, "SADD <ikey> ( <im> )+"),
    (4, "SADD <ikey> ( <im> )#"),
    (5, "SREM <skey> ( <m> )+"),
    (4, "SREM <ikey> ( <im> )+"),
    (3, "SREM <ikey> ( <im> )#"),
    (2, "SREM <skey> ( <m> )#"),
    (4, "SISMEMBER <skey>|<ikey> <m>|<im>"),
    (3, "SMISMEMBER <skey>|<ikey> ( <m>|<im> )+"),
    (3, "SCARD <skey>|<ikey>"),
    (6, "SMEMBERS <skey>|<ikey>"),
    (4, "SMOVE <skey>|<ikey> <skey>|<ikey> <m>|<im>"),
    (4, "SPOP <skey>|<ikey> [ <n> ]"),
    (4, "SRANDMEMBER <skey>|<ikey> [ <picks> ]"),
    (8, "SINTER|SUNION|SDIFF ( <skey>|<ikey> )+"),
    (6, "SINTERSTORE|SUNIONSTORE|SDIFFSTORE <skey>|<ikey> ( <skey>|<ikey> )+"),
    (4, "SINTERCARD ( <skey>|<ikey> )n { LIMIT <n> }"),
    (4, "SSCAN <skey>|<ikey> <cursor> { MATCH <pattern> ; COUNT <n> }"),
    (5, "OBJECT ENCODING <skey>|<ikey>"),
    (1, "DEL <skey>|<ikey>"),
];
