//! The binary. Everything is in the library; `cli.rs` picks the subcommand.

use std::process::ExitCode;

/// RocksDB's C++ allocates from the same heap, so that one figure bounds both.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    haypile::cli::main(std::env::args_os())
}
