//! What is shared with `compare`: calls, the clock, types, and why there is no number.

#[path = "../compare/harness/call.rs"]
pub mod call;
#[path = "../compare/harness/dtype.rs"]
mod dtype;
#[path = "../compare/harness/failure.rs"]
mod failure;
#[path = "../compare/harness/stored.rs"]
pub mod stored;
#[path = "../compare/harness/timer.rs"]
pub mod timer;

pub use failure::Failure;
