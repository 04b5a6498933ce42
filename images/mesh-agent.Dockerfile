# The proxy of a pod: mesh-agent beside an upstream Envoy, and iptables and nftables for the init container. From the repository's root:
#   docker build -f images/mesh-agent.Dockerfile -t mesh-agent .
FROM rust:1.92-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --profile agent --locked --package mesh-agent --bin mesh-agent

FROM envoyproxy/envoy:v1.40-latest
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates iproute2 iptables nftables \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/agent/mesh-agent /usr/local/bin/
USER 1337:1337
EXPOSE 15001 15006 15020 15021 15090
# The webhook gives the command: proxy sidecar, proxy router, or init.
ENTRYPOINT ["mesh-agent"]
