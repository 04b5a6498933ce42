//! One container as a process: its image is a role of our own program, its volumes are mounted for it alone, and it has the
//! environment, the arguments and the user that its spec asks for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, SecurityContext};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::process::Command;

use super::environment;
use super::network::{self, NODE};
use super::plan::Pod;
use super::{APP_USER, Options, PROXY_MARK};

/// Images of the stand-in app: the rest of the name is its part.
const APP_IMAGE: &str = "mesh-rs/bookinfo-";
/// The image of the app that says who asks.
const ECHO_IMAGE: &str = "mesh-rs/echo";
/// The image of the agent, with any tag, of any registry.
const AGENT_IMAGE: &str = "/mesh-agent:";

/// What an image holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A part of bookinfo (`reviews-v2`).
    App(String),
    /// The app that says who asks.
    Echo,
    /// The agent with its Envoy.
    Agent,
}

impl Image {
    /// The image of that name.
    ///
    /// # Errors
    /// This node has no such image.
    pub fn of(container: &Container) -> Result<Self, String> {
        let name = container.image.as_deref().unwrap_or_default();
        match name.strip_prefix(APP_IMAGE) {
            Some(part) => part.parse::<crate::bookinfo::Part>().map(|_| Self::App(part.to_owned())),
            None if name == ECHO_IMAGE => Ok(Self::Echo),
            None if name.contains(AGENT_IMAGE) => Ok(Self::Agent),
            None => Err(format!("image {name} is none of {APP_IMAGE}*, {ECHO_IMAGE}, *{AGENT_IMAGE}*")),
        }
    }
}

/// The process of a container; `volumes` are the pod's, by their names.
///
/// # Errors
/// Its spec asks for something that this node does not have.
pub fn command(
    options: &Options,
    pod: &Pod,
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<Command, String> {
    let image = Image::of(container)?;
    let known = environment::variables(pod, container)?;
    let arguments = container.args.iter().flatten().map(|argument| environment::expand(argument, &known)).collect();
    let arguments = match image {
        Image::App(part) => vec!["app".into(), part, "--pod".into(), pod.name().to_owned()],
        Image::Echo => vec!["echo".into()],
        Image::Agent => {
            let arguments = if options.one_user { told_by_mark(arguments) } else { arguments };
            [vec!["mesh-agent".to_owned()], arguments].concat()
        }
    };
    let user = User::of(container.security_context.as_ref());
    let mut command = enter(options, pod.name(), user, &mounts(container, volumes)?);
    command.args(arguments).envs(known).current_dir("/");
    command.env("PATH", PATH).env("ENVOY_PATH", &options.envoy);
    Ok(command)
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    user: i64,
    group: i64,
}

impl User {
    /// Whom a container asks for; the group is that of the user where it says nothing.
    pub fn of(context: Option<&SecurityContext>) -> Self {
        let user = context.and_then(|context| context.run_as_user).unwrap_or(APP_USER);
        Self { user, group: context.and_then(|context| context.run_as_group).unwrap_or(user) }
    }

    /// For `nsenter`: root stays who it is, since a change of user takes all capabilities.
    fn options(self) -> Vec<String> {
        let user = (self.user != 0).then(|| format!("--setuid={}", self.user));
        let group = (self.group != 0).then(|| format!("--setgid={}", self.group));
        user.into_iter().chain(group).collect()
    }
}

/// A command that runs our program in a pod's network namespace as a user, with these folders mounted for it alone.
pub fn enter(options: &Options, pod: &str, user: User, mounts: &[(PathBuf, String)]) -> Command {
    let mut script = String::from("set -e\n");
    for (from, to) in mounts {
        script.push_str(&format!("mkdir -p '{to}'\nmount --bind '{}' '{to}'\n", from.display()));
    }
    script.push_str("exec \"$@\"");
    let mut command = Command::new("unshare");
    command.env_clear().env("PATH", PATH).args(["--mount", "--", "sh", "-c", &script, "sh"]);
    command.arg("nsenter").arg(format!("--net={}", network::namespace_file(pod)));
    if !options.one_user {
        command.args(user.options());
    }
    command.arg("--").arg(&options.program);
    command
}

/// What is mounted where; outer folders first.
fn mounts(container: &Container, volumes: &BTreeMap<String, PathBuf>) -> Result<Vec<(PathBuf, String)>, String> {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| {
        let volume = volumes.get(&mount.name).ok_or_else(|| format!("there is no volume {}", mount.name))?;
        let path = volume.join(mount.sub_path.as_deref().unwrap_or_default());
        Ok((path, mount.mount_path.clone()))
    });
    let mut mounts = mounts.collect::<Result<Vec<_>, String>>()?;
    mounts.sort_by(|(_, a), (_, b)| a.cmp(b));
    Ok(mounts)
}

/// Where there is one user only, the proxy's packets are told by a mark; those of the agent itself go to the node.
fn told_by_mark(arguments: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-u" => drop(arguments.next()),
            "-x" => {
                let excluded = arguments.next().filter(|ranges| !ranges.is_empty());
                out.extend([argument, excluded.map_or(String::new(), |ranges| ranges + ",") + &format!("{NODE}/32")]);
            }
            _ => out.push(argument),
        }
    }
    out.extend(["--proxy-mark".to_owned(), PROXY_MARK.to_string()]);
    out
}

/// Asks a container whether it is ready, or has started.
///
/// # Errors
/// It is not, or the probe is of a kind that this node does not know.
pub async fn ask(pod: &Pod, container: &Container, probe: &Probe) -> Result<(), String> {
    let Some(HTTPGetAction { path, port, .. }) = &probe.http_get else {
        return Err("this node probes by HTTP only".into());
    };
    let port = match port {
        IntOrString::Int(port) => *port,
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports.filter(|port| port.name.as_ref() == Some(name)).map(|port| port.container_port).next();
            named.ok_or_else(|| format!("there is no port {name}"))?
        }
    };
    let url = format!("http://{}:{port}{}", pod.ip, path.as_deref().unwrap_or("/"));
    let answer = tokio::time::timeout(std::time::Duration::from_secs(2), crate::http::get(&url)).await;
    let (status, body) = answer.map_err(|_| format!("{url}: no answer"))?.map_err(|error| format!("{url}: {error}"))?;
    if status == 200 { Ok(()) } else { Err(format!("{url}: {status} {}", String::from_utf8_lossy(&body))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_their_names() {
        let of = |image: &str| Image::of(&Container { image: Some(image.into()), ..Container::default() });
        assert_eq!(of("mesh-rs/bookinfo-reviews-v2"), Ok(Image::App("reviews-v2".into())));
        assert_eq!(of("mesh-rs/echo"), Ok(Image::Echo));
        assert_eq!(of("ghcr.io/mesh-rs/mesh-agent:latest"), Ok(Image::Agent));
        assert!(of("nginx").unwrap_err().contains("nginx") && of("mesh-rs/bookinfo-x").is_err());
    }

    #[test]
    fn users_and_groups_are_those_of_the_spec() {
        let of = |user, group| {
            let context = SecurityContext { run_as_user: user, run_as_group: group, ..Default::default() };
            User::of(Some(&context)).options().join(" ")
        };
        assert_eq!(of(Some(1337), Some(1337)), "--setuid=1337 --setgid=1337");
        assert_eq!(of(Some(0), Some(1337)), "--setgid=1337", "as the proxy in mode TPROXY");
        assert_eq!(of(Some(0), Some(0)), "");
        assert_eq!(of(None, None), "--setuid=1001 --setgid=1001");
    }

    #[test]
    fn one_user_is_told_by_a_mark() {
        let told = told_by_mark(["init", "-u", "1337", "-x", "", "-b", "*"].map(str::to_owned).into());
        assert_eq!(told, ["init", "-x", "10.244.0.1/32", "-b", "*", "--proxy-mark", "1337"]);
    }
}
