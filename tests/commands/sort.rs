//! SORT of lists and sets of any kind. What equal weights leave open is not stored.

use super::grammar::Line;

pub const COMMANDS: &[Line] = &[
    (4, "RPUSH <sortkey> ( <small> )+"),
    (2, "ZADD <scoredkey> ( 0|1|1.5|2|-3|inf <small> )+"),
    (1, "ZREM <scoredkey> ( <small> )+"),
    (1, "DEL <sortkey>"),
    (2, "MSET ( <weightkey> <n> )+"),
    (1, "DEL ( <weightkey> )+"),
    (1, "HSET <hkey> ( <small> <n> )+"),
    (
        6,
        "SORT|SORT_RO <sorted> \
         { BY <by> ; LIMIT <i> <i> ; GET #|w_*|{t}h->*|nothing ; GET w_*|h:1->* ; ASC|DESC ; ALPHA }",
    ),
    (4, "SORT <sorted> { LIMIT <i> <i> ; GET #|w_*|{t}h->* ; ASC|DESC ; ALPHA } STORE <lkey>"),
    (2, "SORT <sorted> { BY w_*|{t}h->* ; GET # ; ASC|DESC } STORE <lkey>|<sortkey>"),
    (1, "SORT <sorted> BY nosort { ASC|DESC ; ALPHA } STORE <lkey>|<sortkey>"),
    (1, "SORT_RO <sorted> { BY w_* ; STORE <lkey> }"),
];
