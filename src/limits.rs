//! Every bound of the program, and the ledger that divides the memory budget.
//!
//! Knows no other room: those that queue or hold something are handed their bound from here.

use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A collection of more elements, or a longer string, gives its space back soon after it is gone; that of smaller
/// ones waits until RocksDB rewrites their files anyway: less than a megabyte is not worth rewriting a file for.
pub const GARBAGE_MIN_ELEMENTS: u64 = 10_000;
pub const GARBAGE_MIN_STRING_BYTES: u64 = 16 * MIB;
/// Of those that are gone one shard remembers so many, with names up to this length.
pub const GARBAGE_RANGES_MAX: usize = 1_024;
pub const GARBAGE_NAME_MAX_BYTES: usize = 1_024;

/// Below this the lines are too thin to work with.
pub const MEMORY_BUDGET_MIN_BYTES: u64 = 64 * MIB;
/// Redis's own bound on a value (the default of proto-max-bulk-len).
pub const VALUE_MAX_BYTES: u64 = 512 * MIB;
/// A value passes through several lines of the ledger at once, so it may only be a part of the budget.
pub const VALUE_PART_OF_BUDGET: u64 = 8;

/// Lengths of names are stored in two bytes.
pub const KEY_NAME_MAX_BYTES: usize = u16::MAX as usize;
/// Arguments of one command; Redis's bound.
pub const ARGS_MAX: u32 = 1024 * 1024;
/// A line of an inline command; Redis's bound.
pub const INLINE_MAX_BYTES: usize = 64 * 1024;
/// Before AUTH a client gets little room; Redis's bounds.
pub const UNAUTHENTICATED_ARGS_MAX: u32 = 10;
pub const UNAUTHENTICATED_BULK_MAX_BYTES: u64 = 16 * KIB;
/// Bytes parsed of one connection before the others have their turn: well under a millisecond of work.
pub const PARSE_PER_TURN_MAX_BYTES: usize = 256 * 1024;
/// Replies a connection may have outstanding before it is read no further: several full pipelines.
pub const PENDING_REPLIES_PER_CONNECTION_MAX: usize = 1024;

/// Frames that one turn may add to a shard's log; room for so much is always prepared.
pub const LOG_TURN_MAX_BYTES: u64 = 16 * MIB;
/// A shard's memtables are sealed at this size at the latest: in larger ones inserts are dearer, and
/// freeing them is felt.
pub const MEMTABLE_SEAL_MAX_BYTES: u64 = 64 * MIB;

/// Bytes kept of a connection whose commands must wait; beyond it its socket is read no further.
pub const INPUT_PAUSE_BYTES: usize = 256 * 1024;
/// An input buffer that a large command has grown shrinks to this when it is empty.
pub const INPUT_KEEP_BYTES: usize = 64 * 1024;
/// Replies not yet sent at which a connection's next command waits: a client that reads nothing is owed no
/// more than this and one reply.
pub const OUTPUT_PAUSE_BYTES: usize = 1024 * 1024;
/// Messages taken from one lane in a turn.
pub const MESSAGES_PER_TURN_MAX: usize = 256;
/// How long a stop waits for what has been begun, and for memtables to be written.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(60);

/// Steps (rows or elements touched) of one command in a turn: a millisecond at half a microsecond each.
pub const STEPS_PER_TURN_MAX: u32 = 2_000;
/// A command with more arguments goes to the pool unseen: walking them alone would use up a turn.
pub const ARGS_PER_TURN_MAX: usize = 2 * STEPS_PER_TURN_MAX as usize + 1;
/// Pieces of long strings from several shards that one command may work with in a turn.
pub const FETCHED_PIECES_PER_TURN_MAX: usize = 16;
/// So does a command of more bytes: the core does not even copy it.
pub const COMMAND_PER_TURN_MAX_BYTES: usize = 1024 * 1024;
/// Giant commands that the connections of one core may have under way: each holds its bytes, its effects
/// and its log records in memory.
pub const GIANTS_PER_CORE_MAX: usize = 2;
/// Commands of a pipeline whose keys are touched before the first of them runs, and where they are looked for.
pub const LOOK_AHEAD_COMMANDS: usize = 16;
pub const LOOK_AHEAD_BYTES: usize = 16 * KIB as usize;
/// Bytes received that one turn looks at; what more has come waits in the buffers it came in.
pub const RECEIVED_PER_TURN_MAX_BYTES: usize = 256 * 1024;
/// Bytes given to a socket at once.
pub const SEND_MAX_BYTES: usize = 256 * 1024;
/// A larger value is not copied into the bytes that are to be sent before its turn to be sent has come.
pub const REPLY_SHARE_MIN_BYTES: usize = 64 * 1024;
/// Elements of a reply that are held at once; a longer one is sent while it is made, if it can be.
pub const REPLY_HELD_MAX_ELEMENTS: u64 = 10_000;
/// How long the client of such a reply may read nothing.
pub const REPLY_PATIENCE: Duration = Duration::from_secs(60);
/// Such replies under way on one core: each has a thread and a snapshot.
pub const LONG_REPLIES_PER_CORE_MAX: usize = 32;
/// Room set aside for a command of many arguments whose length nobody knows yet: so large that it is not
/// moved while it grows. Takes addresses, not memory.
pub const INPUT_RESERVE_BYTES: usize = 256 * 1024 * 1024;
/// A commit of more operations, or of more bytes than a piece, is logged and applied in pieces over several
/// turns: 100,000 operations at once hold a core for 54 ms.
pub const COMMIT_OPS_MAX: usize = 1_000;
/// A piece: half a millisecond of work.
pub const COMMIT_PIECE_OPS: usize = 300;
pub const COMMIT_PIECE_BYTES: usize = 256 * 1024;
/// What turns have logged gathers until it is worth a batch: half of this, bytes, or half of an eighth of what a
/// shard's memtables are sealed at, if that is less. Writes wait when it is all of it.
pub const GATHERED_MAX_BYTES: usize = 4 << 20;
/// Or it has waited for so long: what RocksDB lacks stays little where little is written.
pub const GATHERED_MAX_MS: u64 = 20;
/// The niceness of the threads that give RocksDB the rest, and of those that make long replies: a core that shares
/// their CPU comes first, and they get a share all the same.
pub const APPLY_NICE: i32 = 5;
pub const LONG_REPLY_NICE: i32 = 10;
/// Up to so many rows and elements and bytes a core gives RocksDB itself; more a thread.
pub const APPLY_HERE_MAX: usize = 128;
pub const APPLY_HERE_BYTES: usize = 64 * 1024;
/// Commands that wait on one core (for the disk, a latch, a gate); beyond it connections are read no further.
pub const TASKS_PER_CORE_MAX: usize = 8_192;
/// Messages in a lane between two cores; more wait at the sender, which reads no more sockets meanwhile.
pub const LANE_CAPACITY: usize = 1_024;
/// Connections that one core may begin to hand to others, a second: some tens of microseconds each.
pub const MOVES_PER_SECOND_MAX: u32 = 200;
/// Jobs one core may have at the blocking pool, queued or running: 25 ms of 16 threads at 100 µs.
pub const COLD_IN_FLIGHT_PER_CORE_MAX: usize = 4_096;
/// Places where SCANs have stopped, per core; the oldest is forgotten, and its slot then starts again.
pub const SCAN_TOKENS_MAX: usize = 1_024;
/// What the names kept with them may take, per core.
pub const SCAN_TOKENS_MAX_BYTES: usize = 1 << 20;

/// What a range of keys or fields answers at once, about, with the values of those; what follows is asked for
/// from there on.
pub const RANGE_REPLY_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Payload of one frame between two nodes; a longer message takes several.
pub const REPLICA_FRAME_MAX_BYTES: usize = 1 << 20;
/// A message between two nodes: the record of the largest command, or what one has of each slot.
pub const REPLICA_MESSAGE_MAX_BYTES: usize = 1 << 30;
/// A message's body is sent from where it lies, not copied, from this length on; and received into memory of its
/// own below it, so that a value that is kept does not keep the buffer it came in.
pub const REPLICA_SHARE_MIN_BYTES: usize = 16 << 10;
/// Records that are read of a shard's log at once for one follower.
pub const REPLICA_READ_BYTES: usize = 1 << 20;
/// Pieces of a copy that may be read ahead, and under way on one stream: a few megabytes.
pub const REPLICA_COPY_AHEAD: u64 = 16;
/// Bytes copied in after which a follower makes visible what is complete: that costs it a seal.
pub const REPLICA_ADOPT_BYTES: u64 = 64 << 20;
/// Directories of dropped records that are kept, and what they may take, bytes; beyond either the oldest go. The
/// newest stays: it takes no more than the logs did.
pub const DROPPED_KEPT_MAX: usize = 16;
pub const DROPPED_KEPT_MAX_BYTES: u64 = 1 << 30;
/// Keys that are fetched one by one when a follower's histories are rewound, of all of its slots (a primary: of one
/// shard's), and the bytes of their names; slots beyond it are copied whole.
pub const REWIND_KEYS_MAX: usize = 100_000;
pub const REWIND_NAMES_MAX_BYTES: usize = 16 << 20;
/// What the keys of one slot may hold: rows and elements, and bytes. Both nodes hold it in memory.
pub const REWIND_ENTRIES_MAX: usize = 20_000;
pub const REWIND_SLOT_MAX_BYTES: usize = 4 << 20;
/// How often two nodes say that they are there, milliseconds.
pub const REPLICA_BEAT_MS: u64 = 1_000;
/// Pauses before a link is tried again: the first, and the longest, milliseconds.
pub const REPLICA_PAUSE_MIN_MS: u64 = 100;
pub const REPLICA_PAUSE_MAX_MS: u64 = 5_000;

/// Bytes of records that a node may lack of slots when the pause begins in which they change hands.
pub const SLOT_HAND_OVER_BYTES: u64 = 256 << 10;
/// How often that is tried, and the time in between.
pub const SLOT_HOLD_TRIES: u32 = 10;
pub const SLOT_HOLD_PAUSE: Duration = Duration::from_secs(1);
/// How long another node may take to answer: before slots change hands, while their clients wait for it, and for a
/// digest of what may be a whole disk.
pub const SLOT_PEER_WAIT: Duration = Duration::from_secs(30);
pub const SLOT_HAND_OVER_WAIT: Duration = Duration::from_secs(2);
pub const SLOT_DIGEST_WAIT: Duration = Duration::from_secs(3600);
/// Slots that a connection is known to have written; beyond it, it may have written any.
pub const WRITTEN_SLOTS_MAX: usize = 256;
/// Digests of slots that have been begun and not asked for.
pub const SLOT_DIGESTS_MAX: usize = 16;
/// How long a client waits for its turn to change which slots a node has.
pub const SLOT_CHANGE_WAIT: Duration = Duration::from_secs(1);
/// How long a command that writes a slot may take to end when the slot is to change hands.
pub const SLOT_HOLD_WAIT: Duration = Duration::from_millis(500);
/// How often the replication thread looks at what time brings, and followers are told that it lives.
pub const REPLICA_TICK: Duration = Duration::from_millis(100);
/// As long as there is no other node.
pub const REPLICA_TICK_ALONE: Duration = Duration::from_secs(1);
/// Clients in WAIT; more are answered at once.
pub const REPLICA_WAITS_MAX: usize = 10_000;
/// Sent to a follower of one shard's log and not acknowledged, bytes; then that shard's stream pauses.
pub const REPLICA_WINDOW_BYTES: usize = 8 << 20;
/// Of a shard's log: the last records that were read for followers, kept for the others of them, bytes.
pub const REPLICA_RECENT_BYTES: usize = 1 << 20;
/// Of a slot that is copied: what travels at once.
pub const REPLICA_CHUNK_BYTES: usize = 128 << 10;
pub const REPLICA_CHUNK_ENTRIES: usize = 500;
/// What one of them may take when it comes from another node: far more than any node makes.
pub const REPLICA_CHUNK_MAX_BYTES: usize = 64 << 20;
/// What is gathered of slots that are copied in before files are made of it, bytes.
pub const COPIED_FILE_BYTES: usize = 16 << 20;
/// After so many bytes a follower is told which slots are complete.
pub const REPLICA_MARK_BYTES: usize = 8 << 20;

/// What MONITOR shows of one command, about.
pub const MONITOR_LINE_MAX_BYTES: usize = 64 * 1024;
/// Longest DEBUG SLEEP.
pub const DEBUG_SLEEP_MAX: Duration = Duration::from_secs(600);

/// Connections to the admin port; more wait in the kernel.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;
/// How long a request to the admin port may take to arrive, and its connection may last.
pub const ADMIN_REQUEST_WAIT: Duration = Duration::from_secs(5);
pub const ADMIN_CONNECTION_WAIT: Duration = Duration::from_secs(120);
/// After an accept that failed.
pub const ADMIN_ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// A core that does not answer the admin port within this time is held to be stuck.
pub const ADMIN_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Receive buffers of one core, at most: what a fast network fills in a few turns.
const RECEIVE_RING_MAX_BYTES: u64 = 32 * MIB;
const RECEIVE_BUFFER_MAX_BYTES: u64 = 16 * KIB;
const RECEIVE_BUFFER_MIN_BYTES: u64 = 4 * KIB;
/// More of these per core would not make anything faster; the caches use the memory better.
const TURNS_PER_CORE_MAX_BYTES: u64 = 256 * MIB;
const LOG_TAIL_PER_SHARD_MAX_BYTES: u64 = 64 * MIB;
const COLD_LOADS_PER_CORE_MAX_BYTES: u64 = 256 * MIB;

const _: () = assert!(VALUE_MAX_BYTES.is_multiple_of(MIB));
const _: () = assert!(COMMIT_OPS_MAX <= STEPS_PER_TURN_MAX as usize, "a piece is applied within a turn");
const _: () = assert!(COMMIT_PIECE_BYTES as u64 <= MEMORY_BUDGET_MIN_BYTES / VALUE_PART_OF_BUDGET);
const _: () = assert!(ARGS_PER_TURN_MAX < ARGS_MAX as usize);
const _: () = assert!(PARSE_PER_TURN_MAX_BYTES >= INLINE_MAX_BYTES, "an inline command fits one turn");
const _: () = assert!(COLD_IN_FLIGHT_PER_CORE_MAX <= TASKS_PER_CORE_MAX, "each cold load belongs to a task");

/// How the memory budget is divided. Each line is a cap for the whole node, in bytes; together they are
/// the budget. Whoever holds memory of a kind holds it within its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    pub budget: u64,
    pub cores: u16,
    pub shards: u16,
    /// RocksDB's blocks, indexes and filters.
    pub block_cache: u64,
    /// RocksDB's memtables, the sealed ones included.
    pub memtables: u64,
    /// Decoded rows in front of RocksDB.
    pub hot_cache: u64,
    /// Buffers lent to the kernel for what sockets receive.
    pub receive_rings: u64,
    /// Commands received in part. Holds at least one value of `value_max`: count it by node, not by core.
    pub query_buffers: u64,
    /// Replies that wait for their client. As above.
    pub output_buffers: u64,
    /// Effects of turns and the log's frames being written. As above.
    pub turns: u64,
    /// The newest part of the logs, kept for followers.
    pub log_tail: u64,
    /// Values on their way from the disk.
    pub cold_loads: u64,
    pub replication: u64,
    /// Latches, slot tables, connections' own state, lanes.
    pub tables: u64,
    /// The largest value a client may store.
    pub value_max: u64,
}

impl Ledger {
    /// Divides a budget in bytes. Buffers come first, then block cache, memtables and hot cache share the
    /// rest 2 : 1 : 1 (about 40, 20 and 20 of 100 on large machines; less where one value weighs more).
    pub fn from_budget(budget: u64, cores: u16, shards: u16) -> Result<Ledger, String> {
        assert!(cores > 0 && shards > 0, "a node has cores and shards");
        if budget < MEMORY_BUDGET_MIN_BYTES {
            return Err(format!(
                "a memory budget of {budget} bytes is too small: at least {MEMORY_BUDGET_MIN_BYTES} \
                 ({} MiB) are needed",
                MEMORY_BUDGET_MIN_BYTES / MIB
            ));
        }
        let percent = |part: u64| (u128::from(budget) * u128::from(part) / 100) as u64;
        let (per_core, per_shard) = (u64::from(cores), u64::from(shards));
        let value_max = VALUE_MAX_BYTES.min(budget / VALUE_PART_OF_BUDGET);
        let receive_rings = percent(4).min(per_core * RECEIVE_RING_MAX_BYTES);
        let query_buffers = percent(3).max(value_max);
        let output_buffers = percent(4).max(value_max);
        let turns = percent(2).min(per_core * TURNS_PER_CORE_MAX_BYTES).max(value_max);
        let log_tail = percent(1).min(per_shard * LOG_TAIL_PER_SHARD_MAX_BYTES);
        let cold_loads = percent(2).min(per_core * COLD_LOADS_PER_CORE_MAX_BYTES);
        let (replication, tables) = (percent(1), percent(3));
        let buffers = receive_rings + query_buffers + output_buffers + turns + log_tail;
        let rest = budget - buffers - cold_loads - replication - tables;
        let (memtables, hot_cache) = (rest / 4, rest / 4);
        let ledger = Ledger {
            budget,
            cores,
            shards,
            block_cache: rest - memtables - hot_cache,
            memtables,
            hot_cache,
            receive_rings,
            query_buffers,
            output_buffers,
            turns,
            log_tail,
            cold_loads,
            replication,
            tables,
            value_max,
        };
        assert_eq!(
            ledger.lines().iter().map(|(_, bytes)| bytes).sum::<u64>(),
            budget,
            "the lines are the budget"
        );
        Ok(ledger)
    }

    /// All lines with their names, for INFO and the start's log.
    pub fn lines(&self) -> [(&'static str, u64); 11] {
        [
            ("block_cache", self.block_cache),
            ("memtables", self.memtables),
            ("hot_cache", self.hot_cache),
            ("receive_rings", self.receive_rings),
            ("query_buffers", self.query_buffers),
            ("output_buffers", self.output_buffers),
            ("turns", self.turns),
            ("log_tail", self.log_tail),
            ("cold_loads", self.cold_loads),
            ("replication", self.replication),
            ("tables", self.tables),
        ]
    }

    /// One core's part of a line, bytes.
    pub fn per_core(&self, line: u64) -> u64 {
        line / u64::from(self.cores)
    }

    /// One shard's part of a line, bytes.
    pub fn per_shard(&self, line: u64) -> u64 {
        line / u64::from(self.shards)
    }

    /// Receive buffers of one core: how many (a power of two) and of how many bytes each.
    pub fn receive_buffers_per_core(&self) -> (u16, u32) {
        let share = self.per_core(self.receive_rings);
        let bytes = (share / 128).clamp(RECEIVE_BUFFER_MIN_BYTES, RECEIVE_BUFFER_MAX_BYTES);
        let bytes = 1 << bytes.ilog2();
        let count = (share / bytes).clamp(1, 32 * KIB);
        (1 << count.ilog2(), bytes as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets() -> impl Iterator<Item = u64> {
        (26..=40).flat_map(|power| [1u64 << power, (1u64 << power) + 12_345_677])
    }

    #[test]
    fn the_lines_add_up_to_the_budget() {
        for budget in budgets() {
            for cores in 1..=128u16 {
                for shards in [1, cores, 4 * cores] {
                    let ledger = Ledger::from_budget(budget, cores, shards).unwrap();
                    let sum: u64 = ledger.lines().iter().map(|(_, bytes)| bytes).sum();
                    assert_eq!(sum, budget, "{cores} cores, {shards} shards");
                    assert!(ledger.lines().iter().all(|(_, bytes)| *bytes >= 512 * KIB), "{ledger:?}");
                    assert!(ledger.memtables >= ledger.value_max, "a value fits the memtables: {ledger:?}");
                    let (count, bytes) = ledger.receive_buffers_per_core();
                    assert!(count.is_power_of_two() && bytes.is_power_of_two());
                    assert!(u64::from(count) * u64::from(bytes) <= ledger.per_core(ledger.receive_rings));
                }
            }
        }
    }

    #[test]
    fn large_budgets_are_divided_as_meant_and_small_ones_still_hold_a_value() {
        let large = Ledger::from_budget(64 << 30, 16, 16).unwrap();
        assert_eq!(large.value_max, VALUE_MAX_BYTES);
        for (line, percent) in [(large.block_cache, 40), (large.memtables, 20), (large.hot_cache, 20)] {
            let is = line as f64 * 100.0 / large.budget as f64;
            assert!((is - f64::from(percent)).abs() < 2.0, "{is} instead of {percent}");
        }
        let small = Ledger::from_budget(MEMORY_BUDGET_MIN_BYTES, 1, 1).unwrap();
        assert_eq!(small.value_max, 8 * MIB);
        for line in [small.query_buffers, small.output_buffers, small.turns, small.memtables] {
            assert!(line >= small.value_max);
        }
    }

    #[test]
    fn a_budget_below_the_floor_is_refused_with_the_floor() {
        let error = Ledger::from_budget(MEMORY_BUDGET_MIN_BYTES - 1, 1, 1).unwrap_err();
        assert!(error.contains("67108863") && error.contains("64 MiB"), "{error}");
    }
}
