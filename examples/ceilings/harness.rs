//! What is shared with `compare`: the clock, and why there is no number.

#[path = "../compare/harness/failure.rs"]
mod failure;
#[path = "../compare/harness/timer.rs"]
pub mod timer;

pub use failure::Failure;
