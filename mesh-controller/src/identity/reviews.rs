//! Tokens of service accounts, by asking the apiserver of their cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use mesh_api::Name;
use mesh_ca::authenticate::{TokenReviewer, Unknown};
use mesh_ca::signer::Later;

/// A caller waits for its answer, and an apiserver that takes longer is in trouble.
const PATIENCE: Duration = Duration::from_secs(10);

/// How clusters are reached, by their names. The clones of one are one.
#[derive(Clone, Default)]
pub struct Clients(Arc<RwLock<BTreeMap<Name, Client>>>);

impl Clients {
    /// Knows a cluster, or knows it by another client.
    pub fn insert(&self, cluster: Name, client: Client) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(cluster, client);
    }

    /// Forgets a cluster.
    pub fn remove(&self, cluster: &Name) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(cluster);
    }

    fn get(&self, cluster: &str) -> Option<Client> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(cluster).cloned()
    }
}

/// Creates `TokenReview`s.
pub struct TokenReviews {
    own: Name,
    clients: Clients,
}

impl TokenReviews {
    /// Asks `clients`, and for callers that name no cluster the one called `own`.
    pub fn new(own: Name, clients: Clients) -> Self {
        Self { own, clients }
    }
}

impl TokenReviewer for TokenReviews {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
        cluster: &'a str,
    ) -> Later<'a, Result<TokenReviewStatus, Unknown>> {
        Box::pin(async move {
            let cluster = if cluster.is_empty() { self.own.as_str() } else { cluster };
            let unknown = || Unknown(format!("the caller's cluster {cluster:?} is not one of the mesh"));
            let reviews: Api<TokenReview> = Api::all(self.clients.get(cluster).ok_or_else(unknown)?);
            let spec = TokenReviewSpec { audiences: Some(audiences.to_vec()), token: token.to_owned() };
            let review = TokenReview { spec, ..TokenReview::default() };
            let asked = tokio::time::timeout(PATIENCE, reviews.create(&PostParams::default(), &review)).await;
            let answer = asked.map_err(|_| Unknown(format!("the apiserver of {cluster} does not answer")))?;
            answer.map(|review| review.status.unwrap_or_default()).map_err(|error| Unknown(error.to_string()))
        })
    }
}
