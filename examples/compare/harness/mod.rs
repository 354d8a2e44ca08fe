//! What `compare` and the benches share: the variants, their tensors and calls, the check against the twin, the clock.

pub mod call;
pub mod case;
mod dtype;
mod failure;
pub mod gradients;
pub mod parallel;
pub mod stored;
pub mod tensors;
pub mod timer;
pub mod variants;
pub mod verify;

pub use failure::Failure;
