//! What an object would be at odds with: others that claim what it claims, and what it refers to that isn't there.
//!
//! Asked before an object is stored, so that its author hears of it, and not whoever looks for the lost requests later. All here are
//! warnings: each object is right by itself, and its other half may come next. Whoever is told hears both names, and which
//! of the two wins.

use std::sync::Arc;

use mesh_api::{Diagnostic, FieldPath, Hostname, Name, Object, ObjectRef};

use crate::build::gateway::merge::{self, Selected};
use crate::model::destination_rule::DestinationRule;
use crate::model::gateway::Gateway;
use crate::model::virtual_service::{Destination, MESH_GATEWAY, VirtualService};
use crate::model::{InNamespace, Labels, Settings, Visibility, selects};
use crate::shared::Shared;
use crate::snapshot::{Change, Snapshot};

/// What `object` would be at odds with if it came into this world, or replaced what it has of that name. An object that
/// doesn't say when it was made counts as the youngest if it is new.
///
/// ```
/// use mesh_api::{Name, document};
/// use mesh_xds::{Snapshot, conflicts};
///
/// let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart, namespace: shop}\n\
///             spec: {hosts: [cart], http: [{route: [{destination: {host: cart}}]}]}\n";
/// let parsed = document::parse(&Name::from("cart.yaml"), text);
/// let told = conflicts::conflicts(&Snapshot::default(), parsed.objects().next().unwrap());
/// assert_eq!(told[0].code, "UnservedHost"); // there is no Service cart yet
/// ```
pub fn conflicts(snapshot: &Snapshot, object: &Object) -> Vec<Diagnostic> {
    let reference = object.object_ref();
    let key = InNamespace::from(&reference);
    let after = snapshot.apply([Change::Upsert(object.clone())]);
    let worlds = Worlds { before: snapshot, after: &after, settings: after.settings() };
    let told = match object {
        Object::VirtualService(_) => {
            after.virtual_services.get(&key).map(|row| worlds.of_virtual_service(&worlds.dated(row)))
        }
        Object::DestinationRule(_) => after.destination_rules.get(&key).map(|row| worlds.of_destination_rule(row)),
        Object::Gateway(_) => after.gateways.get(&key).map(|row| worlds.of_gateway(row)),
        _ => None,
    };
    told.unwrap_or_default().into_iter().map(|problem| problem.on(&reference)).collect()
}

/// The world without the object, or with what it replaces, and the world with it.
struct Worlds<'a> {
    before: &'a Snapshot,
    after: &'a Snapshot,
    settings: Arc<Settings>,
}

fn warning(code: &'static str, path: impl Into<String>, message: String) -> Diagnostic {
    Diagnostic::warning(code, message).at(FieldPath::new(path))
}

fn unserved(path: impl Into<String>, host: &Hostname) -> Diagnostic {
    let message = format!("nothing serves the host {host}; check its name, or add its Service or ServiceEntry");
    warning("UnservedHost", path, message)
}

/// When an object was made; a new one that doesn't say so is the youngest.
fn made(is_new: bool, created: i64) -> i64 {
    if is_new && created == 0 { i64::MAX } else { created }
}

impl Worlds<'_> {
    fn dated(&self, row: &VirtualService) -> VirtualService {
        let is_new = self.before.virtual_services.get(&row.key()).is_none();
        VirtualService { created: made(is_new, row.created), ..row.clone() }
    }

    fn of_virtual_service(&self, own: &VirtualService) -> Vec<Diagnostic> {
        let mut told = Vec::new();
        for (_, other) in self.after.virtual_services.iter() {
            if other.key() != own.key() {
                self.shared_hosts(own, other, &mut told);
            }
        }
        for (path, to) in destinations(own) {
            if !self.is_served(&to.host) {
                told.push(unserved(path, &to.host));
            } else if !to.subset.is_empty() && !has_subset(self.after, &to.host, &to.subset) {
                let message = format!(
                    "no DestinationRule of {} has the subset {:?}; add it there, for until then its requests fail",
                    to.host, to.subset
                );
                told.push(warning("UndefinedSubset", path, message));
            }
        }
        told
    }

    /// Hosts that two VirtualServices have on one gateway. In the mesh the first is alone; a gateway has the routes of both,
    /// the first's before.
    fn shared_hosts(&self, own: &VirtualService, other: &VirtualService, told: &mut Vec<Diagnostic>) {
        let (visible, others) = (self.visibility(own), self.visibility(other));
        if own.is_delegate() || other.is_delegate() || !meet(&visible, &others) {
            return;
        }
        let wins = (rank(&visible, own), own.order()) < (rank(&others, other), other.order());
        let named = ObjectRef::new("VirtualService", other.namespace.clone(), other.name.clone());
        let advice = "put the rules into one of them, or remove the host from the other";
        for gateway in own.gateways.iter().filter(|gateway| other.is_on(gateway)) {
            for (i, host) in own.hosts.iter().enumerate().filter(|(_, host)| other.hosts.contains(host)) {
                let message = match (gateway == MESH_GATEWAY, wins) {
                    (true, false) => {
                        format!("{named} has {host} in the mesh already and wins: these rules are ignored; {advice}")
                    }
                    (true, true) => format!(
                        "{named} has {host} in the mesh too and loses: its rules are ignored from now on; {advice}"
                    ),
                    (false, false) => format!(
                        "{named} has {host} on gateway {gateway} already and wins: its rules are tried before these; {advice}"
                    ),
                    (false, true) => format!(
                        "{named} has {host} on gateway {gateway} too and loses: its rules are tried after these; {advice}"
                    ),
                };
                told.push(warning("HostConflict", format!("spec.hosts[{i}]"), message));
            }
        }
    }

    fn visibility(&self, virtual_service: &VirtualService) -> Visibility {
        let default = &self.settings.mesh.default_virtual_service_export_to;
        virtual_service.export_to.or_default(default, &virtual_service.namespace)
    }

    fn is_served(&self, host: &Hostname) -> bool {
        self.after.services.iter().any(|(id, _)| id.key.host.covers(host))
    }

    fn of_destination_rule(&self, own: &DestinationRule) -> Vec<Diagnostic> {
        let mut told = Vec::new();
        if !own.host.is_wildcard() && !self.is_served(&own.host) {
            told.push(unserved("spec.host", &own.host));
        }
        for (_, virtual_service) in self.after.virtual_services.iter() {
            let lost = destinations(virtual_service).find(|(_, to)| {
                let is_meant = !to.subset.is_empty() && own.host.covers(&to.host);
                is_meant
                    && has_subset(self.before, &to.host, &to.subset)
                    && !has_subset(self.after, &to.host, &to.subset)
            });
            if let Some((path, to)) = lost {
                let message = format!(
                    "VirtualService {}/{} {path} sends requests to the subset {:?} of {}, which is here no more: they will \
                     fail; change that rule first",
                    virtual_service.namespace, virtual_service.name, to.subset, to.host
                );
                told.push(warning("UndefinedSubset", "spec.subsets", message));
            }
        }
        told
    }

    fn of_gateway(&self, row: &Gateway) -> Vec<Diagnostic> {
        let is_new = self.before.gateways.get(&row.key()).is_none();
        let own = Gateway { created: made(is_new, row.created), ..row.clone() };
        let alone = left_out(&[&own]);
        let mut told: Vec<Diagnostic> = alone.iter().map(within).collect();
        for (_, other) in self.after.gateways.iter() {
            if other.key() == own.key() || !share_proxies(&own.selector, &other.selector) {
                continue;
            }
            let theirs = left_out(&[other]);
            let wins = own.order() < other.order();
            let between = left_out(&[&own, other]);
            let between = between.iter().filter(|lost| !alone.contains(lost) && !theirs.contains(lost));
            told.extend(between.map(|lost| against(lost, other, wins)));
        }
        told
    }
}

/// Where the requests of a VirtualService go, each with the field of its rule.
fn destinations(from: &VirtualService) -> impl Iterator<Item = (String, &Destination)> {
    let http = from.http.iter().flat_map(|rule| {
        let path = rule.path.text("http", None);
        rule.destinations().map(move |to| (path.clone(), to))
    });
    let tls =
        from.tls.iter().flat_map(|rule| rule.route.iter().map(|to| (rule.path.text("tls", None), &to.destination)));
    let tcp =
        from.tcp.iter().flat_map(|rule| rule.route.iter().map(|to| (rule.path.text("tcp", None), &to.destination)));
    http.chain(tls).chain(tcp)
}

/// True when some DestinationRule defines the subset, whoever may use that rule.
fn has_subset(world: &Snapshot, host: &Hostname, subset: &Name) -> bool {
    world.destination_rules.iter().any(|(_, rule)| rule.host.covers(host) && rule.subset(subset).is_some())
}

/// True when some namespace sees both.
fn meet(a: &Visibility, b: &Visibility) -> bool {
    match (a, b) {
        (Visibility::Nobody, _) | (_, Visibility::Nobody) => false,
        (Visibility::Namespaces(a), Visibility::Namespaces(b)) => !a.is_disjoint(b),
        _ => true,
    }
}

/// The order in which a namespace looks at VirtualServices, before their age: its own private ones, those exported to it,
/// the public ones.
fn rank(visibility: &Visibility, virtual_service: &VirtualService) -> u8 {
    match visibility {
        Visibility::Namespaces(list) if list.len() == 1 && list.contains(&virtual_service.namespace) => 0,
        Visibility::Namespaces(_) => 1,
        _ => 2,
    }
}

/// True when proxies that the one selects are all, or among, those that the other selects.
fn share_proxies(a: &Labels, b: &Labels) -> bool {
    selects(a, b) || selects(b, a)
}

/// The servers that Gateways on one proxy lose to each other.
fn left_out(gateways: &[&Gateway]) -> Vec<Diagnostic> {
    let selected = |gateway: &&Gateway| Selected {
        gateway: Shared::new((*gateway).clone()),
        by_service: false,
        ports: Vec::new(),
    };
    merge::merge(gateways.iter().map(selected).collect()).told
}

fn within(lost: &Diagnostic) -> Diagnostic {
    let message = format!("a server before this one wins: {}; give it another port or another host", lost.message);
    warning("ServerConflict", lost.path.as_str(), message)
}

/// A server that one of two Gateways loses to the other.
fn against(lost: &Diagnostic, other: &Gateway, wins: bool) -> Diagnostic {
    let named = format!("Gateway {}/{}", other.namespace, other.name);
    if wins {
        let message = format!(
            "{named} is younger and loses its {} to this one ({}); give one of them another port, host or selector",
            lost.path, lost.message
        );
        return warning("ServerConflict", "spec.servers", message);
    }
    let message =
        format!("{named} wins, as it is older: {}; give this server another port, host or selector", lost.message);
    warning("ServerConflict", lost.path.as_str(), message)
}

#[cfg(test)]
mod tests {
    use mesh_api::document;

    use super::*;

    fn objects(text: &str) -> Vec<Object> {
        let parsed = document::parse(&"conflicts.yaml".into(), text);
        assert_eq!(parsed.diagnostics().next(), None);
        parsed.objects().cloned().collect()
    }

    const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: old, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {hosts: [cart], gateways: [mesh, front], http: [{route: [{destination: {host: cart, subset: v1}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: a}}
";

    /// What is told of an object in that world: code, field, and parts of the message.
    fn check(object: &str, want: &[(&str, &str, &[&str])]) {
        let world = Snapshot::default().apply(objects(WORLD).into_iter().map(Change::Upsert));
        let object = objects(object).remove(0);
        let told = conflicts(&world, &object);
        assert_eq!(told.len(), want.len(), "{told:#?}");
        for (told, (code, path, parts)) in told.iter().zip(want) {
            assert_eq!((told.code.as_ref(), told.path.as_str()), (*code, *path), "{told}");
            assert_eq!(told.object, Some(object.object_ref()));
            parts.iter().for_each(|part| assert!(told.message.contains(part), "{part:?} in {told}"));
        }
    }

    fn virtual_service(metadata: &str, spec: &str) -> String {
        let metadata = format!("{{name: new, namespace: shop{metadata}}}");
        format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {metadata}\nspec: {spec}\n")
    }

    #[test]
    fn one_host_on_one_gateway() {
        let route = "http: [{route: [{destination: {host: cart}}]}]";
        let on_the_mesh = format!("{{hosts: [cart], {route}}}");
        let loses: (&str, &str, &[&str]) =
            ("HostConflict", "spec.hosts[0]", &["VirtualService shop/old", "already and wins"]);
        let wins: (&str, &str, &[&str]) =
            ("HostConflict", "spec.hosts[0]", &["VirtualService shop/old", "too and loses"]);
        check(&virtual_service("", &on_the_mesh), &[loses]);
        check(&virtual_service(", creationTimestamp: '2025-01-01T00:00:00Z'", &on_the_mesh), &[loses]);
        check(&virtual_service(", creationTimestamp: '2023-01-01T00:00:00Z'", &on_the_mesh), &[wins]);
        let private = format!("{{hosts: [cart], exportTo: [.], {route}}}");
        check(&virtual_service("", &private), &[wins]);
        check(&virtual_service("", &format!("{{hosts: [cart], exportTo: ['~'], {route}}}")), &[]);
        check(
            &virtual_service("", &format!("{{hosts: [cart], gateways: [front], {route}}}")),
            &[("HostConflict", "spec.hosts[0]", &["on gateway shop/front", "tried before these"])],
        );
        check(&virtual_service("", &format!("{{hosts: [cart.example.com], {route}}}")), &[]);
        check(&virtual_service("", &on_the_mesh).replace("name: new", "name: old"), &[]);
    }

    #[test]
    fn what_is_referred_to_and_not_there() {
        check(
            &virtual_service(
                "",
                "{hosts: [a.com], http: [{route: [{destination: {host: cart, subset: v3}}]}, {route: [{destination: {host: card}}]}]}",
            ),
            &[
                ("UndefinedSubset", "spec.http[0]", &["cart.shop.svc.cluster.local", "\"v3\""]),
                ("UnservedHost", "spec.http[1]", &["card.shop.svc.cluster.local"]),
            ],
        );
        let rule = |host: &str, subset: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\n\
                 spec: {{host: {host}, subsets: [{{name: {subset}, labels: {{version: a}}}}]}}\n"
            )
        };
        check(&rule("cart", "v1"), &[]);
        check(
            &rule("cart", "v2"),
            &[("UndefinedSubset", "spec.subsets", &["VirtualService shop/old spec.http[0]", "\"v1\""])],
        );
        check(
            &rule("card", "v1").replace("name: cart", "name: card"),
            &[("UnservedHost", "spec.host", &["card.shop"])],
        );
    }

    #[test]
    fn servers_that_clash() {
        let gateway = |metadata: &str, selector: &str, servers: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: new, namespace: shop{metadata}}}\n\
                 spec: {{selector: {{istio: {selector}}}, servers: [{servers}]}}\n"
            )
        };
        let tcp = "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}";
        let https = "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: b}}";
        check(
            &gateway("", "ingressgateway", tcp),
            &[("ServerConflict", "spec.servers[0]", &["Gateway shop/front wins", "port 80"])],
        );
        check(
            &gateway("", "ingressgateway", https),
            &[("ServerConflict", "spec.servers[0]", &["shop/front wins", "a.com"])],
        );
        check(
            &gateway(", creationTimestamp: '2023-01-01T00:00:00Z'", "ingressgateway", https),
            &[("ServerConflict", "spec.servers", &["shop/front is younger and loses its spec.servers[1]", "a.com"])],
        );
        check(&gateway("", "other", tcp), &[]);
        check(
            &gateway("", "other", &format!("{https}, {}", https.replace("name: https", "name: more"))),
            &[("ServerConflict", "spec.servers[1]", &["a server before this one wins", "a.com"])],
        );
    }
}
