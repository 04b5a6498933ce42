//! `cargo demo`. One program plays every role: what the user starts makes the box, `inside` is the show itself, and the rest
//! are the processes that it runs on its node.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hyper::Uri;
use mesh_examples::bookinfo::{self, Part};
use mesh_examples::demo::matrix::witness;
use mesh_examples::demo::{self, Place, Show, load};
use mesh_examples::{echo, http, sandbox, tools};

/// Bookinfo on a mesh of real Envoys: requests through the ingress gateway, then a live edit
#[derive(Debug, Parser)]
#[command(name = "demo", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: demo::bookinfo::Options,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    #[command(flatten)]
    Show(Show),
    /// Print the path of the Envoy that would be used, fetching it where none is at hand
    FetchEnvoy,
    #[command(hide = true)]
    Inside {
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        show: Show,
    },
    /// Print the status of the answer to one request
    #[command(hide = true)]
    Get { url: String },
    /// Print what comes of a call in each protocol
    #[command(hide = true)]
    Call { host: String },
    /// Send requests until standard input ends, and print what came of them
    #[command(hide = true)]
    Load {
        url: Uri,
        #[arg(long)]
        rate: f64,
    },
    #[command(hide = true)]
    App {
        part: Part,
        #[arg(long)]
        pod: String,
    },
    #[command(hide = true)]
    Echo,
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
    let cli = Cli::parse_from(&arguments);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let given = arguments.into_iter().skip(1);
    let code = runtime.block_on(async {
        match cli.role.unwrap_or(Role::Show(Show::Bookinfo(cli.options.clone()))) {
            // Without its name, the first show is what is meant.
            Role::Show(show) => {
                let name = std::env::args().nth(1).is_none_or(|first| first != show.name()).then(|| show.name().into());
                outside(&show, name.into_iter().chain(given).collect()).await
            }
            role => play(role).await.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS),
        }
    });
    // Readers of standard input would be waited for, otherwise.
    runtime.shutdown_background();
    code
}

async fn play(role: Role) -> Result<(), String> {
    match role {
        Role::Show(_) => Err("a show is for the box".into()),
        Role::FetchEnvoy => tools::envoy_binary().and_then(|envoy| demo::say(&envoy.display().to_string())),
        Role::Inside { place, show } => demo::run(&place, &show).await,
        Role::Get { url } => demo::say(&http::get(&url).await?.0.to_string()),
        Role::Call { host } => tell(&witness::call_all(&host).await?),
        Role::Load { url, rate } => tell(&load::send(&url, rate, sandbox::told_to_end()).await),
        Role::App { part, pod } => {
            let done = bookinfo::serve(part, pod, ([0, 0, 0, 0], bookinfo::PORT).into()).await;
            done.map_err(|error| error.to_string())
        }
        Role::Echo => echo::serve(Ipv4Addr::UNSPECIFIED).await.map_err(|error| error.to_string()),
    }
}

/// Says something to the program that started this one.
fn tell(what: &impl serde::Serialize) -> Result<(), String> {
    demo::say(&serde_json::to_string(what).map_err(|error| error.to_string())?)
}

/// Fetches what is missing while there still is a network, then starts the show in its box, with the arguments as given.
async fn outside(show: &Show, given: Vec<OsString>) -> ExitCode {
    let prepared = tools::envoy_binary().and_then(|envoy| Ok((envoy, tools::target_folder()?.join("mesh-demo"))));
    let (envoy, folder) = match prepared {
        Ok((envoy, folder)) => (envoy, folder.join(show.name())),
        Err(error) => return failed(&error),
    };
    let mut arguments: Vec<OsString> = vec!["inside".into(), "--folder".into(), folder.into_os_string()];
    arguments.extend(["--envoy".into(), envoy.into_os_string()]);
    arguments.extend(given);
    sandbox::run(&arguments).await.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &str) -> ExitCode {
    eprintln!("demo: {error}");
    ExitCode::FAILURE
}
