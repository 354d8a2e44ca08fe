//! Runs any op on tensors from any framework: `cargo run --release --example op -- INPUT.safetensors OUTPUT.safetensors`.
//!
//! The input's metadata holds `op` (as docs/OP.md lists them), `config` (JSON of the
//! op's config) and, if wanted, `outputs`, `output_dtype`, `layout` and `transpose`; its tensors are named as the fields of the op's
//! inputs. The output holds the op's outputs by field name, and `kernel`, `adapter` and `driver` in its metadata. Whatever is wrong ends
//! with exit code 2 and a message; `--check` ends with 1 where a result is further off than it may be. `docs/OP.md` has it all.

#[path = "op/cli.rs"]
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main_with(std::env::args_os(), &mut std::io::stdout(), &mut std::io::stderr())
}
