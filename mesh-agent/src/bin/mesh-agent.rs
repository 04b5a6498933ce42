//! The binary: reads the process's environment once and hands everything else to [`mesh_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_agent::cli::main(std::env::args_os(), mesh_agent::Environment::from_iter(std::env::vars()))
}
