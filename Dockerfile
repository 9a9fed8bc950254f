# ebs-bake in a container. `docker build -t ebs-bake .` is all: docs/container.md says how to run it.
#
# Who has compiled it already, such as a CI job, need not do so again: with BINARY=prebuilt the program is taken from the build
# context, which then is a directory with the files `ebs-bake` (of scripts/build-release.sh) and `LICENSE`:
#   docker build --build-arg BINARY=prebuilt --file Dockerfile DIRECTORY      (BuildKit; the older builder compiles all the same)
ARG RUST_IMAGE=rust:1.95.0-slim-trixie
ARG DEBIAN_IMAGE=debian:13.7-slim
ARG BINARY=build

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY scripts/build-release.sh scripts/install-packages.sh scripts/
RUN scripts/install-packages.sh build
# The dependencies are most of the work and change seldom: a layer of their own, compiled with a program that does nothing.
COPY Cargo.lock Cargo.toml ./
COPY fuzz/Cargo.toml fuzz/
RUN mkdir src benches \
    && echo 'fn main() {}' >src/main.rs && cp src/main.rs benches/bake.rs && touch src/lib.rs \
    && scripts/build-release.sh
COPY src src
COPY LICENSE /out/
# Cargo goes by times, and those of the sources are older than those of the stand-ins.
RUN touch src/lib.rs src/main.rs && cp "$(scripts/build-release.sh)" /out/

FROM scratch AS prebuilt
# LICENSE is in every context, so that a builder which makes stages that nobody asked for does not fail here.
COPY LICENSE ebs-bake* /out/

FROM ${BINARY} AS binary

FROM ${DEBIAN_IMAGE}
ARG DEBIAN_IMAGE
ARG VERSION=0.1.0
ARG REVISION
LABEL org.opencontainers.image.title="ebs-bake" \
      org.opencontainers.image.description="Bakes a git commit into an EBS snapshot, from any CI system" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/${DEBIAN_IMAGE}"
# mkfs.ext4, e2fsck and resize2fs; whom to trust; and `ps`, which Jenkins calls in the containers of its jobs. Versions are not
# pinned: those of the Debian release get security fixes only.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates e2fsprogs procps \
    && rm -rf /var/lib/apt/lists/*
# The default --mount-point is there, so that the container's root can be read-only.
RUN mkdir --parents /code/chef
COPY --from=binary /out/LICENSE /usr/share/doc/ebs-bake/copyright
COPY --from=binary /out/ebs-bake /usr/local/bin/ebs-bake
# Where a job's files are mounted: ebs-bake.yml, or the repository (`--repository .`).
WORKDIR /work
# The program is process 1: it handles signals by itself.
ENTRYPOINT ["ebs-bake"]
CMD ["--help"]
