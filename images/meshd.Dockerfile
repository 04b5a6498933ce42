# The control plane, and meshctl, which is the operator's program as well. From the repository's root:
#   docker build -f images/meshd.Dockerfile -t meshd .
FROM rust:1.92-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package mesh-controller --bin meshd --bin meshctl

FROM debian:bookworm-slim
COPY --from=build /src/target/release/meshd /src/target/release/meshctl /usr/local/bin/
# Nothing is written below the root; ports are above 1024.
USER 1337:1337
EXPOSE 8080 15010 15012 15014 15017
ENTRYPOINT ["meshd"]
