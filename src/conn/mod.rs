//! Connections: sockets' bytes in, commands out to where they run, replies back in request order.
//!
//! Reading order: `serve` (the loop of one core), `dispatch` (one command), `coordinate` (commands of
//! several shards or cores), `pending` (order of replies). The only room that has both sockets and shards.

mod assigning;
mod connection;
pub mod coordinate;
pub mod dispatch;
mod holding;
pub mod monitor;
pub mod moving;
pub mod pending;
pub mod serve;
mod timing;
mod waiting;
