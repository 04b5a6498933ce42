//! `meshd`; everything is in the library.

/// Builds come and go in bursts: this allocator gives their memory back, and is quicker at them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // A huge page stays as long as one allocation of a burst lives in it. Where the kernel knows none there is nothing
    // to turn off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    mesh_controller::meshd::main(std::env::args_os())
}
