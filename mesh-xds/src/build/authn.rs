//! What workloads accept, asked for: as servers by their own policies, as destinations by their namespace's.

use mesh_api::Name;

use crate::memo::Query;
use crate::model::Labels;
use crate::model::peer_authentication::{Accepts, MtlsMode};
use crate::scope::settings;
use crate::view::View;

/// The metadata by which a proxy says that it has no certificates of the mesh: `false`.
const MESH_MTLS: &str = "MESH_MTLS";

/// True when a proxy with that metadata has certificates of the mesh.
pub(crate) fn has_identity(traits: &Labels) -> bool {
    traits.get(MESH_MTLS).is_none_or(|said| *said != "false")
}

/// What a workload accepts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AcceptedBy {
    /// Its namespace.
    pub(crate) namespace: Name,
    /// Its labels, as far as selectors look at them.
    pub(crate) labels: Labels,
}

impl Query for AcceptedBy {
    type Out = Accepts;
    fn run(&self, view: &View<'_>) -> Accepts {
        let root = settings(view).root_namespace.clone();
        let in_root = view.bucket(|s| &s.peer_authentications, &root);
        let own = view.bucket(|s| &s.peer_authentications, &self.namespace).filter(|_| self.namespace != root);
        Accepts::compose(in_root.chain(own).map(|(_, policy)| &**policy), &root, &self.labels)
    }
}

/// What workloads of a namespace accept unless they say something themselves, as far as their callers can tell.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AcceptedIn(pub(crate) Name);

impl Query for AcceptedIn {
    type Out = MtlsMode;
    fn run(&self, view: &View<'_>) -> MtlsMode {
        view.get(&AcceptedBy { namespace: self.0.clone(), labels: Labels::new() }).mode
    }
}
