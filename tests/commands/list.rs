//! Lists. The lowest rank of all overflows in Redis 7.0 and is not asked for. What would wait finds nothing for a moment, or is served at once.

use super::grammar::Line;

pub const COMMANDS: &[Line] = &[
    (12, "LPUSH|RPUSH <lkey> ( <e> )+"),
    (6, "LPUSH|RPUSH <lkey> ( <e> )#"),
    (2, "LPUSHX|RPUSHX <lkey> ( <e> )+"),
    (5, "LPOP|RPOP <lkey>"),
    (5, "LPOP|RPOP <lkey> <n>"),
    (3, "LLEN <lkey>"),
    (9, "LRANGE <lkey> <i> <i>"),
    (5, "LINDEX <lkey> <i>"),
    (5, "LSET <lkey> <i> <e>"),
    (6, "LINSERT <lkey> BEFORE|AFTER|before|nothing <e> <e>"),
    (5, "LREM <lkey> <n> <e>"),
    (4, "LTRIM <lkey> <i> <i>"),
    (6, "LPOS <lkey> <e> { RANK <rank> ; COUNT <n> ; MAXLEN <n> }"),
    (6, "LMOVE <lkey> <lkey> LEFT|RIGHT|left LEFT|RIGHT"),
    (1, "LMOVE <lkey> <lkey> LEFT|nothing nothing"),
    (3, "RPOPLPUSH <lkey> <lkey>"),
    (4, "LMPOP ( <lkey> )n LEFT|RIGHT|LEFT|RIGHT|nothing [ COUNT <n> ]"),
    (1, "BLPOP|BRPOP ( <lkey> )+ <moment>"),
    (1, "BLMOVE <lkey> <lkey> LEFT|RIGHT LEFT|RIGHT <moment>"),
    (1, "BRPOPLPUSH <lkey> <lkey> <moment>"),
    (1, "BLMPOP <moment> ( <lkey> )n LEFT|RIGHT [ COUNT <n> ]"),
    (3, "OBJECT ENCODING <lkey>"),
    (1, "DEL <lkey>"),
];
