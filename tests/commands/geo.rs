//! Places. Those that are equally far may be answered in any order: what is stored takes all of them.

use super::grammar::Line;

pub const COMMANDS: &[Line] = &[
    (10, "GEOADD <gkey> { NX|XX ; CH } ( <place> <m> )+"),
    (3, "GEOADD <gkey> ( <place> <m> )#"),
    (4, "GEODIST <gkey> <m> <m> [ <unit> ]"),
    (4, "GEOPOS|GEOHASH <gkey> ( <m> )*"),
    (
        10,
        "GEOSEARCH <gkey> <center> <area> \
         { ASC|DESC ; COUNT <n> [ ANY ] ; WITHCOORD ; WITHDIST ; WITHHASH ; <center> }",
    ),
    (
        5,
        "GEORADIUS|GEORADIUS_RO <gkey> <place> <dist> <unit> { ASC|DESC ; COUNT <n> ; WITHCOORD ; WITHDIST }",
    ),
    (
        5,
        "GEORADIUSBYMEMBER|GEORADIUSBYMEMBER_RO <gkey> <m> <dist> <unit> { ASC|DESC ; COUNT <n> ; WITHHASH }",
    ),
    (2, "GEORADIUS <gkey> <place> <dist> <unit> { STORE|STOREDIST <gkey> ; WITHDIST }"),
    (4, "GEOSEARCHSTORE <gkey> <gkey> <center> <area> { STOREDIST ; ASC|DESC ; WITHDIST }"),
    (3, "ZRANGE <gkey> 0 -1 WITHSCORES"),
    (3, "ZREM <gkey> ( <m> )+"),
    (1, "DEL <gkey>"),
];
