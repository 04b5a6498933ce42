//! `meshctl`: what the control plane would do, without a server. Each subcommand is the function that the server uses,
//! applied to files; none has logic of its own.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli;

mod bootstrap;
mod crds;
mod explain;
mod inject;
mod input;
mod install;
mod manifest;
mod operator;
mod setting;
mod validate;
mod webhook;
mod xds;

#[derive(Parser)]
#[command(name = "meshctl", version, about = "Looks at a mesh through its manifests", max_term_width = 100)]
struct Meshctl {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Xds(xds::Xds),
    Bootstrap(bootstrap::Bootstrap),
    Crds(crds::Crds),
    Explain(explain::Explain),
    Inject(inject::Inject),
    Install(install::Install),
    Manifest(manifest::Manifest),
    Operator(operator::Operator),
    Uninstall(install::Uninstall),
    Validate(validate::Validate),
    Webhook(webhook::Webhook),
}

/// Runs `meshctl` with these arguments, the first being the program's name. Exit codes: 0 ok, 1 a negative result, 2
/// wrong usage or unreadable input.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let meshctl = match Meshctl::try_parse_from(args) {
        Ok(meshctl) => meshctl,
        Err(error) => return cli::usage(&error),
    };
    cli::end(match meshctl.command {
        Command::Xds(command) => command.run(),
        Command::Bootstrap(command) => command.run(),
        Command::Crds(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Inject(command) => command.run(),
        Command::Install(command) => command.run(),
        Command::Manifest(command) => command.run(),
        Command::Operator(command) => command.run(),
        Command::Uninstall(command) => command.run(),
        Command::Validate(command) => command.run(),
        Command::Webhook(command) => command.run(),
    })
}
