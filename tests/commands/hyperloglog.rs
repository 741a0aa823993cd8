//! HyperLogLogs. A count alone refreshes what Redis keeps of it in the value: only those of `<hllkey>` are
//! asked for it, and their bytes are compared without it (`Rule::Registers`).

use super::grammar::Line;

pub const COMMANDS: &[Line] = &[
    (8, "PFADD <pkey> ( <m> )*"),
    (4, "PFADD <pkey> ( <unique> )#"),
    (5, "PFCOUNT <hllkey>"),
    (4, "PFCOUNT <pkey> ( <pkey> )+"),
    (4, "PFMERGE <pkey> ( <pkey> )*"),
    (6, "GET <hllkey>"),
    (1, "SET <hllkey> <v>"),
    (2, "STRLEN <hllkey>"),
    (1, "OBJECT ENCODING <hllkey>"),
    (2, "COPY <hllkey> <hllkey> [ REPLACE ]"),
    (1, "RENAME <hllkey> <hllkey>"),
    (1, "DEL <hllkey>"),
];
