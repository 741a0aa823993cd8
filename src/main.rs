//! The binary: picks the subcommand. Everything else is in the library.

use std::process::ExitCode;

/// RocksDB's C++ allocates from the same heap, so that one figure bounds both.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    haypile::server::main(std::env::args_os())
}
