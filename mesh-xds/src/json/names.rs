//! The descriptor of `istio.networking.nds.v1.NameTable`, the one message that we send and Envoy does not know.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions};

const INFO: &str = ".istio.networking.nds.v1.NameTable.NameInfo";
const ENTRY: &str = ".istio.networking.nds.v1.NameTable.TableEntry";

/// As protoc would describe Istio's `dns/proto/nds.proto`.
pub(super) fn file() -> FileDescriptorProto {
    let info = [text(1, "ips", Label::Repeated), one(2, "registry"), one(3, "shortname"), one(4, "namespace")];
    let mut entry = message("TableEntry", [one(1, "key"), of_message(2, "value", Label::Optional, INFO)].into());
    entry.options = Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
    let mut table = message("NameTable", vec![of_message(1, "table", Label::Repeated, ENTRY)]);
    table.nested_type = vec![message("NameInfo", info.into()), entry];
    FileDescriptorProto {
        name: Some("dns/proto/nds.proto".into()),
        package: Some("istio.networking.nds.v1".into()),
        message_type: vec![table],
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
