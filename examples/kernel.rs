//! Shows what a plan picks, and the source of its kernels as it is compiled, on any machine, with or without a GPU:
//!
//! ```sh
//! cargo run --example kernel -- attention '{"causal": "bottom_right"}' '{"q_len": 1}' --assume gpu --subgroup 32 --wgsl
//! cargo run --example kernel -- matmul --assume gpu --spirv | spirv-dis
//! ```
//!
//! `--assume gpu` plans on a device of wgpu's that computes nothing and has what the other options say. Whatever is wrong ends with
//! exit code 2 and the library's own message.

#[path = "kernel/cli.rs"]
mod cli;

use std::io::{IsTerminal, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main_with(std::env::args_os(), &mut stdout(), stdout().is_terminal(), &mut stderr())
}
