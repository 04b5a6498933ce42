//! The descriptors of what we send to agents and Envoy does not know: `istio.networking.nds.v1.NameTable` and
//! `istio.mesh.v1alpha1.ProxyConfig`.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions};

const INFO: &str = ".istio.networking.nds.v1.NameTable.NameInfo";
const ENTRY: &str = ".istio.networking.nds.v1.NameTable.TableEntry";

/// As protoc would describe Istio's `dns/proto/nds.proto`.
pub(super) fn name_table() -> FileDescriptorProto {
    let info = [text(1, "ips", Label::Repeated), one(2, "registry"), one(3, "shortname"), one(4, "namespace")];
    let mut entry = message("TableEntry", [one(1, "key"), of_message(2, "value", Label::Optional, INFO)].into());
    entry.options = Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
    let mut table = message("NameTable", vec![of_message(1, "table", Label::Repeated, ENTRY)]);
    table.nested_type = vec![message("NameInfo", info.into()), entry];
    file("dns/proto/nds.proto", "istio.networking.nds.v1", table)
}

/// The one field of Istio's `mesh/v1alpha1/proxy.proto` that is sent over xDS.
pub(super) fn proxy_config() -> FileDescriptorProto {
    let config = message("ProxyConfig", vec![text(34, "ca_certificates_pem", Label::Repeated)]);
    file("mesh/v1alpha1/proxy.proto", "istio.mesh.v1alpha1", config)
}

fn file(name: &str, package: &str, message: DescriptorProto) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.into()),
        package: Some(package.into()),
        message_type: vec![message],
        syntax: Some("proto3".into()),
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.into()), field, ..DescriptorProto::default() }
}

fn one(number: i32, name: &str) -> FieldDescriptorProto {
    text(number, name, Label::Optional)
}

fn text(number: i32, name: &str, label: Label) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(Type::String.into()),
        ..FieldDescriptorProto::default()
    }
}

fn of_message(number: i32, name: &str, label: Label, message: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        r#type: Some(Type::Message.into()),
        type_name: Some(message.into()),
        ..text(number, name, label)
    }
}
