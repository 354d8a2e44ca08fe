//! The tests of linear attention once more, by the kernels that a GPU gets.

#[path = "linear_attention.rs"]
mod linear_attention;
