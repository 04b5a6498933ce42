//! How another cluster is reached: the kubeconfigs in a Secret, as far as they may be used here.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::ResourceExt;
use mesh_api::{Name, ObjectRef};

/// What one Secret holds.
pub(super) struct Kubeconfigs {
    pub(super) of: ObjectRef,
    /// By the names of their clusters.
    pub(super) clusters: BTreeMap<Name, Vec<u8>>,
}

pub(super) fn kubeconfigs(secret: &Secret) -> Kubeconfigs {
    let of = ObjectRef::new("Secret", secret.namespace().unwrap_or_default(), secret.name_any());
    let data = secret.data.iter().flatten();
    Kubeconfigs { of, clusters: data.map(|(cluster, text)| (cluster.as_str().into(), text.0.clone())).collect() }
}

/// Why a cluster has no client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("the kubeconfig makes no client: {0}")]
    Client(#[from] kube::Error),
}

/// Refuses a kubeconfig that is none, or that would run programs or read files here: whoever may write a Secret must not
/// be given the control plane's own rights.
pub(super) fn check(kubeconfig: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(kubeconfig);
    let kubeconfig = Kubeconfig::from_yaml(&text).map_err(|error| format!("its kubeconfig cannot be read: {error}"))?;
    let users = kubeconfig.auth_infos.iter().filter_map(|user| user.auth_info.as_ref());
    let clusters = kubeconfig.clusters.iter().filter_map(|cluster| cluster.cluster.as_ref());
    let of_users = users.flat_map(|user| {
        [
            ("exec", user.exec.is_some()),
            ("auth-provider", user.auth_provider.is_some()),
            ("tokenFile", user.token_file.is_some()),
            ("client-certificate", user.client_certificate.is_some()),
            ("client-key", user.client_key.is_some()),
        ]
    });
    let of_clusters = clusters.map(|cluster| ("certificate-authority", cluster.certificate_authority.is_some()));
    match of_users.chain(of_clusters).find(|(_, used)| *used) {
        Some((field, _)) => Err(format!(
            "its kubeconfig uses {field}, which would run or read something here; write the data themselves"
        )),
        None => Ok(()),
    }
}

/// A client of the cluster.
pub(super) async fn client(kubeconfig: &[u8]) -> Result<Client, Unusable> {
    let kubeconfig = Kubeconfig::from_yaml(&String::from_utf8_lossy(kubeconfig))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_run_or_read_something_here_is_refused() {
        let with = |cluster: &str, user: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'{cluster}}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\n"
            )
        };
        for (cluster, user, told) in [
            ("", "token: t", None),
            ("", "client-certificate-data: YQ==, client-key-data: YQ==", None),
            ("", "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}", Some("exec")),
            ("", "tokenFile: /var/run/secrets/token", Some("tokenFile")),
            ("", "client-certificate: /etc/passwd", Some("client-certificate")),
            (", certificate-authority: /etc/passwd", "token: t", Some("certificate-authority")),
        ] {
            let said = check(with(cluster, user).as_bytes()).err();
            assert_eq!(said.is_some(), told.is_some(), "{cluster} {user}: {said:?}");
            assert!(said.unwrap_or_default().contains(told.unwrap_or_default()));
        }
        assert!(check(b"- nonsense").is_err());
    }
}
