//! gRPC reflection of what is served, and not of all of Envoy: the full descriptor set is megabytes once decoded.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

const ADS_FILE: &str = "envoy/service/discovery/v3/ads.proto";

/// The reflection service for ADS and the services of `more`.
pub(super) fn service(
    more: &[&'static [u8]],
) -> Result<ServerReflectionServer<impl ServerReflection>, tonic_reflection::server::Error> {
    let mut builder = tonic_reflection::server::Builder::configure().register_file_descriptor_set(ads_files()?);
    for encoded in more {
        builder = builder.register_encoded_file_descriptor_set(encoded);
    }
    builder = builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    builder.build_v1()
}

/// The file of the service and all that it imports.
fn ads_files() -> Result<FileDescriptorSet, prost::DecodeError> {
    let all = FileDescriptorSet::decode(crate::json::FILE_DESCRIPTOR_SET)?;
    let files: BTreeMap<String, FileDescriptorProto> = all.file.into_iter().map(|f| (f.name().to_owned(), f)).collect();
    let mut wanted = BTreeSet::new();
    let mut todo = vec![ADS_FILE.to_owned()];
    while let Some(name) = todo.pop() {
        if let Some(file) = files.get(&name)
            && wanted.insert(name)
        {
            todo.extend(file.dependency.iter().cloned());
        }
    }
    Ok(FileDescriptorSet {
        file: files.into_iter().filter(|(name, _)| wanted.contains(name)).map(|(_, f)| f).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_and_what_it_needs_and_no_more() {
        let files = ads_files().unwrap().file;
        let names: BTreeSet<_> = files.iter().map(|f| f.name().to_owned()).collect();
        assert!(names.contains(ADS_FILE) && names.contains("envoy/config/core/v3/base.proto"), "{names:?}");
        assert!(files.iter().flat_map(|f| &f.dependency).all(|d| names.contains(d)));
        assert!(names.len() < 60, "{}", names.len());
        assert!(service(&[]).is_ok());
    }
}
