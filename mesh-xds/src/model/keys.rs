//! What rows are called. Each key begins with what its rows are looked up by together.

use mesh_api::{Hostname, Name, ObjectRef};

use crate::snapshot::TableKey;

/// A namespaced object; the bucket is its namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct InNamespace {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: Name,
    /// `metadata.name`.
    pub name: Name,
}

impl InNamespace {
    /// Names an object of a namespace.
    pub fn new(namespace: impl Into<Name>, name: impl Into<Name>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl From<&ObjectRef> for InNamespace {
    fn from(object: &ObjectRef) -> Self {
        Self { namespace: object.namespace.clone(), name: object.name.clone() }
    }
}

impl TableKey for InNamespace {
    type Bucket = Name;
    fn bucket(&self) -> Name {
        self.namespace.clone()
    }
    fn first_of(namespace: &Name) -> Self {
        Self::new(namespace.clone(), Name::default())
    }
}

/// A service as its clients know it: several objects may stand behind one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostKey {
    /// The fully qualified host, or a wildcard host of a ServiceEntry.
    pub host: Hostname,
    /// The namespace of the objects.
    pub namespace: Name,
}

/// A service as one object defines it; the bucket is its host and namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServiceId {
    /// Host and namespace.
    pub key: HostKey,
    /// The defining object.
    pub source: ObjectRef,
}

impl TableKey for ServiceId {
    type Bucket = HostKey;
    fn bucket(&self) -> HostKey {
        self.key.clone()
    }
    fn first_of(key: &HostKey) -> Self {
        Self { key: key.clone(), source: ObjectRef::new("", "", "") }
    }
}

/// An EndpointSlice; the bucket is the Kubernetes Service that it belongs to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SliceKey {
    /// Namespace and name of the Service.
    pub service: InNamespace,
    /// The slice's own name, behind its kind (`EndpointSlice`, `Endpoints`).
    pub slice: Name,
}

impl TableKey for SliceKey {
    type Bucket = InNamespace;
    fn bucket(&self) -> InNamespace {
        self.service.clone()
    }
    fn first_of(service: &InNamespace) -> Self {
        Self { service: service.clone(), slice: Name::default() }
    }
}

/// An object that bears an address; the bucket is the address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ByIp {
    /// The address as text.
    pub ip: Name,
    /// The object.
    pub object: ObjectRef,
}

impl TableKey for ByIp {
    type Bucket = Name;
    fn bucket(&self) -> Name {
        self.ip.clone()
    }
    fn first_of(ip: &Name) -> Self {
        Self { ip: ip.clone(), object: ObjectRef::new("", "", "") }
    }
}
