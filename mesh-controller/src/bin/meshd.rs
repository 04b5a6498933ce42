//! `meshd`; everything is in the library.
fn main() -> std::process::ExitCode {
    mesh_controller::meshd::main(std::env::args_os())
}
