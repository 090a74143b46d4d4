# The root filesystem of the managed plugin: the blockvol binary and the filesystem tools that it runs, with their libraries.
# It is built by "make plugin"; the binary comes from build/. Works with the classic builder and with BuildKit.
# With ARCH it is for another architecture, of which nothing is run here.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS tools
ARG ARCH=
RUN apt-get -qq update && \
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends e2fsprogs xfsprogs util-linux ca-certificates ${ARCH:+binutils} >/dev/null
COPY scripts/rootfs /usr/local/bin/rootfs
RUN rootfs /rootfs mkfs.ext4 e2fsck resize2fs tune2fs dumpe2fs mkfs.xfs xfs_repair xfs_growfs blkid

FROM scratch
ARG BINARY=build/blockvol
COPY --from=tools /rootfs/ /
COPY ${BINARY} /blockvol
ENTRYPOINT ["/blockvol", "serve"]
