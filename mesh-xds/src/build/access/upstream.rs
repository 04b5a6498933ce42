//! Services that proxies ask themselves: authorizers, and servers of keys.

use mesh_api::Hostname;

use crate::build::cluster::outbound_name;
use crate::model::HostKey;
use crate::scope::NamespacesOf;
use crate::view::View;

/// A service of the mesh and the cluster that leads there.
pub(super) struct Upstream {
    pub(super) host: String,
    pub(super) cluster: String,
}

impl Upstream {
    /// The service `[namespace/]host`, or why it can't be told.
    pub(super) fn find(view: &View<'_>, service: &str, port: u32) -> Result<Self, String> {
        let number = u16::try_from(port).ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("{port} is no port"))?;
        let (namespace, host) = match service.split_once('/') {
            Some((namespace, host)) => (Some(namespace), host),
            None => (None, service),
        };
        let known = match namespace {
            Some(namespace) => {
                let key = HostKey { host: Hostname::from(host), namespace: namespace.into() };
                usize::from(view.bucket(|s| &s.services, &key).next().is_some())
            }
            None => view.get(&NamespacesOf(Hostname::from(host))).len(),
        };
        match known {
            1 => Ok(Self { host: host.to_owned(), cluster: outbound_name(number, "", host) }),
            0 => Err(format!("there is no service {service:?}")),
            _ => Err(format!("several namespaces have a service {host:?}; write namespace/{host}")),
        }
    }
}
