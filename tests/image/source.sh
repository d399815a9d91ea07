#!/usr/bin/env bash
# Builds the image from source alone, as 'docker build .' does, and looks at what comes out. Where
# the base image cannot be pulled, one stands in that has the Rust, the C compiler and the downloads
# of this machine, and does not optimise: that shows that the Dockerfile copies all that a build
# needs and leaves the right files, not that Alpine's packages have what they say.
# Usage: source.sh BUILDER NAME VERSION ARCHITECTURE; BUILDER is 'podman' or 'buildah' with options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly builder=$1 name=$2 version=$3 architecture=$4
readonly stand_in=localhost/bots-mover-stand-in:1
readonly registry=https://registry-1.docker.io/v2/ unoptimised_bytes=20000000
work=$(mktemp --directory)
trap 'rm --recursive --force "$work"' EXIT
options=()

# shellcheck disable=SC2086 # the builder is a command and its first arguments
builder() {
    $builder "$@"
}

# An empty root with places for what is mounted over it, an 'apk' that has nothing to do, and a
# 'cargo' that builds for musl where Alpine's does so by itself.
make_stand_in() {
    local sysroot target root="$work/stand-in"
    sysroot=$(rustc --print sysroot)
    target="$(uname --machine)-unknown-linux-musl"
    mkdir --parents "$root/usr" "$root/etc/alternatives" "$root/cargo" "$root/stand-in" \
        "$root$sysroot" "$root/tmp"
    for folder in bin sbin lib lib64; do
        if [[ -L /$folder ]]; then ln --symbolic "usr/$folder" "$root/$folder"; fi
    done
    cat >"$root/stand-in/apk" <<TEXT
#!/bin/sh
echo "not run: apk \$*"
TEXT
    cat >"$root/stand-in/cargo" <<TEXT
#!/bin/sh
set -e
"$sysroot/bin/cargo" "\$@" --target $target
cp target/$target/release/bots-mover target/release/
TEXT
    chmod +x "$root/stand-in/apk" "$root/stand-in/cargo"
    cat >"$work/Dockerfile" <<TEXT
FROM scratch
COPY stand-in/ /
ENV PATH=/stand-in:$sysroot/bin:/usr/bin:/bin CARGO_HOME=/cargo CC_${target//-/_}=gcc \
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
TEXT
    builder build --quiet --file "$work/Dockerfile" --tag "$stand_in" "$work"
    options+=(--build-arg "RUST_IMAGE=$stand_in" --isolation chroot --network host
        --volume "${CARGO_HOME:-$HOME/.cargo}:/cargo" --volume "$sysroot:$sysroot:ro"
        --volume /usr:/usr:ro --volume /etc/alternatives:/etc/alternatives:ro)
}

base=$(sed --quiet 's/^ARG RUST_IMAGE=//p' Dockerfile)
limit=4000000
if curl --silent --head --max-time 10 --output /dev/null "$registry"; then
    builder pull --quiet "$base"
    echo "base image: $base"
else
    echo "base image: a stand-in, since $registry does not answer"
    limit=$unoptimised_bytes
    make_stand_in
fi
builder build --no-cache --timestamp 0 --identity-label=false --build-arg "VERSION=$version" \
    "${options[@]}" --tag "$name" .
builder push --quiet "$name" "docker-archive:$work/image.tar:$name"
python3 tests/image/contents.py "$work/image.tar" "$architecture" "$version" "$limit"

# It is static: it runs outside of a container as well as in one.
tar --extract --directory "$work" --file "$work/image.tar"
find "$work" -maxdepth 1 -name '*.tar' ! -name image.tar -exec \
    tar --extract --directory "$work" --file {} ';' 2>/dev/null || true
[[ $("$work/bots-mover" --version) == "bots-mover $version" ]]
echo "it runs: bots-mover $version"
