# Bellhop's image: one static binary and the certificates of public authorities, on nothing.
#
#   docker build -t bellhop:0.1.0 .
#
# Where no registry can be reached, a binary that was built before takes the place of the build stage:
#
#   make static
#   mkdir -p prebuilt
#   cp target/x86_64-unknown-linux-gnu/release/bellhop /etc/ssl/certs/ca-certificates.crt prebuilt/
#   buildah bud --isolation chroot --build-arg BINARY=prebuilt -t bellhop:0.1.0 .
ARG BINARY=built

# On the machine's own architecture, whatever the image is for: the compiler is not to run in an emulator.
FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS built
ARG TARGETARCH
# When the files of the image were last changed, in seconds since 1970. The same sources give the same files.
ARG SOURCE_DATE_EPOCH=0
WORKDIR /build
COPY . .
# Besides the compiler of the other architecture, there is nothing to install. Addresses are packed as in the Makefile. The
# paths are rewritten, so that they do not depend on where the toolchain is.
RUN set -eu; \
    architecture=$(dpkg --print-architecture); \
    case "${TARGETARCH:-$architecture}" in \
    amd64) target=x86_64-unknown-linux-gnu; gcc=x86_64-linux-gnu-gcc; package=gcc-x86-64-linux-gnu; libc=libc6-dev-amd64-cross ;; \
    arm64) target=aarch64-unknown-linux-gnu; gcc=aarch64-linux-gnu-gcc; package=gcc-aarch64-linux-gnu; libc=libc6-dev-arm64-cross ;; \
    *) echo "no image for $TARGETARCH: only for amd64 and arm64" >&2; exit 1 ;; \
    esac; \
    if [ "${TARGETARCH:-$architecture}" != "$architecture" ]; then \
        apt-get update -qq; \
        apt-get install -y -qq --no-install-recommends "$package" "$libc"; \
    fi; \
    rustup target add "$target"; \
    variable=$(echo "$target" | tr a-z- A-Z_); \
    export "CARGO_TARGET_${variable}_LINKER=$gcc" "CC_$(echo "$target" | tr - _)=$gcc"; \
    packed="-C link-arg=-Wl,-z,pack-relative-relocs"; \
    paths="--remap-path-prefix=/build=bellhop --remap-path-prefix=$CARGO_HOME=cargo"; \
    export RUSTFLAGS="-C target-feature=+crt-static $packed $paths"; \
    cargo build --release --locked --no-default-features --target "$target" --bin bellhop; \
    mkdir /data; \
    cp "target/$target/release/bellhop" /etc/ssl/certs/ca-certificates.crt /; \
    touch -d "@$SOURCE_DATE_EPOCH" /bellhop /ca-certificates.crt /data

FROM scratch AS prebuilt
COPY prebuilt/bellhop prebuilt/ca-certificates.crt /
# Makes the folder: there is no mkdir here.
WORKDIR /data

FROM ${BINARY} AS binary

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Bellhop" \
      org.opencontainers.image.description="Starts workflows on the events of external systems" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=binary --chmod=755 /bellhop /bellhop
COPY --from=binary --chmod=644 /ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A volume that is made for this folder gets its owner.
COPY --from=binary --chown=65532:65532 /data /var/lib/bellhop
USER 65532:65532
EXPOSE 8080 9090 9443
ENTRYPOINT ["/bellhop"]
