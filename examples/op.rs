//! Runs any op on tensors from any framework: `cargo run --release --example op -- INPUT.safetensors OUTPUT.safetensors`.
//!
//! The input's metadata holds `op` (attention, linear_attention, gated_attention, matmul, merge), `config` (JSON of the op's config)
//! and, if wanted, `outputs` (names of those to be made, comma separated) and `output_dtype` (F32, F16 or BF16, of o or c); its
//! tensors are named as the fields of the op's inputs. The output holds the op's outputs by field name, and `kernel`, `adapter` and
//! `driver` in its metadata. Whatever is wrong ends with exit code 2 and the library's own message.

#[path = "op/cli.rs"]
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main_with(std::env::args_os(), &mut std::io::stdout(), &mut std::io::stderr())
}
