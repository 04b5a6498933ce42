//! `meshd`; everything is in the library.

/// Builds come and go in bursts: this allocator gives their memory back, and is quicker at them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    mesh_controller::meshd::main(std::env::args_os())
}
