//! The gradients of softmax attention: twin and GPU.

mod common;
#[path = "attention_backward/twin.rs"]
mod twin;
