//! `meshctl`; everything is in the library.
fn main() -> std::process::ExitCode {
    mesh_controller::meshctl::main(std::env::args_os())
}
