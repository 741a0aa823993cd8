//! Hashes. HEXPIRE and its like are not in the Redis compared with.

use super::grammar::Line;

pub const COMMANDS: &[Line] = &[
    (14, "HSET <hkey> ( <m> <v> )+"),
    (6, "HSET <hkey> ( <m> <v> )#"),
    (1, "HSET <hkey> ( <m> )+"),
    (2, "HMSET <hkey> ( <m> <v> )+"),
    (3, "HSETNX <hkey> <m> <v>"),
    (6, "HGET <hkey> <m>"),
    (4, "HMGET <hkey> ( <m> )+"),
    (8, "HDEL <hkey> ( <m> )+"),
    (3, "HDEL <hkey> ( <m> )#"),
    (3, "HLEN <hkey>"),
    (3, "HSTRLEN <hkey> <m>"),
    (3, "HEXISTS <hkey> <m>"),
    (7, "HKEYS|HVALS|HGETALL|HGETALL <hkey>"),
    (8, "HINCRBY <hkey> <m> <int>"),
    (8, "HINCRBYFLOAT <hkey> <m> <float>"),
    (4, "HSCAN <hkey> <cursor> { MATCH <pattern> ; COUNT <n> }"),
    (4, "HRANDFIELD <hkey> [ <picks> [ WITHVALUES ] ]"),
    (4, "OBJECT ENCODING <hkey>"),
    (1, "DEL <hkey>"),
];
