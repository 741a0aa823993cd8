//! The seam to the machine: pinned executors, the socket ring, lanes between cores, the blocking pool.
//!
//! The only room that says glommio or io_uring. Must not know Redis, storage or what the bytes mean.

mod affinity;
pub mod alarm;
pub mod doorbell;
pub mod executor;
pub mod lanes;
pub mod pool;
pub mod priority;
pub mod reaper;
pub mod ring;
pub mod sleeper;
