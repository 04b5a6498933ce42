//! `cargo demo`. One program plays every role: what the user starts makes the box, `inside` is the demo itself, and the
//! rest are the processes that it runs on its node.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use mesh_examples::bookinfo::{self, Part};
use mesh_examples::{demo, http, sandbox, tools};

/// Bookinfo on a mesh of real Envoys: requests through the ingress gateway, then a live edit
#[derive(Debug, Parser)]
#[command(name = "demo", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Args)]
struct Options {
    /// How many requests are sent and counted
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Leave the mesh running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// A tenth of the requests
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Print the path of the Envoy that would be used, fetching it where none is at hand
    FetchEnvoy,
    #[command(hide = true)]
    Inside {
        #[arg(long)]
        requests: usize,
        #[arg(long)]
        keep: bool,
        #[arg(long)]
        one_user: bool,
        #[arg(long)]
        folder: PathBuf,
        #[arg(long)]
        envoy: PathBuf,
    },
    /// Print the status of the answer to one request
    #[command(hide = true)]
    Get { url: String },
    #[command(hide = true)]
    App {
        part: Part,
        #[arg(long)]
        pod: String,
    },
}

fn main() -> ExitCode {
    // The agent and the control plane read their command lines themselves.
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1).and_then(|role| role.to_str()) {
        Some("mesh-agent") => {
            arguments.remove(0);
            return mesh_agent::cli::main(arguments, mesh_agent::Environment::from_iter(std::env::vars()));
        }
        Some("meshd") => {
            arguments.remove(0);
            return mesh_controller::meshd::main(arguments);
        }
        _ => {}
    }
    let cli = Cli::parse_from(arguments);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let code = runtime.block_on(async {
        let done = match cli.role {
            None => return outside(&cli.options).await,
            Some(Role::FetchEnvoy) => tools::envoy_binary().and_then(|envoy| demo::say(&envoy.display().to_string())),
            Some(Role::Get { url }) => match http::get(&url).await {
                Ok((status, _)) => demo::say(&status.to_string()),
                Err(error) => Err(error),
            },
            Some(Role::App { part, pod }) => bookinfo::serve(part, pod, ([0, 0, 0, 0], bookinfo::PORT).into())
                .await
                .map_err(|error| error.to_string()),
            Some(Role::Inside { requests, keep, one_user, folder, envoy }) => {
                demo::run(&demo::Options { requests, keep, one_user, folder, envoy }).await
            }
        };
        done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
    });
    // Readers of standard input would be waited for, otherwise.
    runtime.shutdown_background();
    code
}

/// Fetches what is missing while there still is a network, then starts the demo in its box.
async fn outside(options: &Options) -> ExitCode {
    let requests = if options.quick { options.requests / 10 } else { options.requests };
    let prepared = tools::envoy_binary().and_then(|envoy| Ok((envoy, tools::target_folder()?.join("mesh-demo"))));
    let (envoy, folder) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error),
    };
    let mut arguments: Vec<OsString> = vec!["inside".into(), "--requests".into(), requests.to_string().into()];
    arguments.extend(["--folder".into(), folder.into_os_string(), "--envoy".into(), envoy.into_os_string()]);
    if options.keep {
        arguments.push("--keep".into());
    }
    sandbox::run(&arguments).await.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &str) -> ExitCode {
    eprintln!("demo: {error}");
    ExitCode::FAILURE
}
