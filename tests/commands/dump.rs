//! Values carried over as payloads: what the last DUMP gave, here or there, is restored on both sides.

use super::grammar::Line;

/// Stands for the payload of the last DUMP that haypile answered.
pub const OURS: &[u8] = b"*OURS";
/// Stands for that of redis-server.
pub const THEIRS: &[u8] = b"*THEIRS";

pub const COMMANDS: &[Line] = &[
    (6, "DUMP <anykey>"),
    (4, "RESTORE <anykey> 0 *OURS|*THEIRS REPLACE"),
    (1, "RESTORE <anykey> <life> *OURS|*THEIRS { REPLACE ; IDLETIME <n> ; FREQ <n> }"),
    (1, "RESTORE <anykey> <at_ms> *OURS|*THEIRS { REPLACE ; IDLETIME <n> } ABSTTL"),
    (1, "RESTORE <anykey> 0 <v> [ REPLACE ]"),
];
