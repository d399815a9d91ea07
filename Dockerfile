# Any builder of multi-stage files can read this one.
#
#   docker build .       compiles in a container; needs nothing but this directory and the network
#   ./build.sh image     brings the binary that it has built (stage 'prebuilt', directory 'rootfs')

# Alpine's Rust makes static binaries by itself.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-alpine3.23@sha256:606fd313a0f49743ee2a7bd49a0914bab7deedb12791f3a846a34a4711db7ed2

FROM scratch AS base
ARG VERSION=unknown
LABEL org.opencontainers.image.title="bots-mover" \
      org.opencontainers.image.description="Moves files between MinIO buckets and the directories of a Bots EDI installation" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION"
USER 1000:1000
ENTRYPOINT ["/bots-mover"]

FROM base AS prebuilt
COPY rootfs/ /

FROM $RUST_IMAGE AS build
# The image has gcc, but not the headers that the C in ring includes.
RUN apk add --no-cache musl-dev
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
RUN cargo build --release --locked \
    && mkdir -p /rootfs/tmp \
    && chmod 1777 /rootfs/tmp \
    && install -m 755 target/release/bots-mover /rootfs/ \
    && install -m 644 src/LICENSE /rootfs/

# /tmp comes along because scratch has none and staging needs one.
FROM base
COPY --from=build /rootfs/ /
