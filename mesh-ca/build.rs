//! Writes the client and the server of the certificate service. Its two messages are Rust already, so no protoc is needed.

fn main() {
    #[cfg(feature = "client")]
    write();
}

#[cfg(feature = "client")]
fn write() {
    use tonic_build::manual::{Builder, Method, Service};

    let create = Method::builder()
        .name("create_certificate")
        .route_name("CreateCertificate")
        .input_type("crate::proto::IstioCertificateRequest")
        .output_type("crate::proto::IstioCertificateResponse")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let service = Service::builder().package("istio.v1.auth").name("IstioCertificateService").method(create).build();
    Builder::new().compile(&[service]);
}
