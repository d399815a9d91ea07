# shellcheck shell=bash
# Images: what builds them, what is in them, how they run. Of build.sh it knows 'target_dir',
# 'version', 'build_binary' and 'fail', and the files of .ci/.

# As kube/ names it: no public registry can answer for it.
readonly image="localhost/bots-mover:$version"

# --- building ---

# Usage: build_images [ARCHITECTURE ...]; this machine's where none is named.
build_images() {
    local architecture
    image_builder >/dev/null ||
        fail "an image needs docker with a reachable engine, podman or buildah"
    if (($# == 0)); then set -- "$(own_architecture)"; fi
    for architecture; do
        build_binary "$(target_of "$architecture")"
        build_image "$architecture"
    done
}

# What Rust and gcc call an architecture that images have another name for.
machine_of() {
    case "$1" in
        amd64) echo x86_64 ;;
        arm64) echo aarch64 ;;
        *) fail "there are images for amd64 and arm64, not for '$1'" ;;
    esac
}

target_of() {
    local machine
    machine=$(machine_of "$1")
    echo "$machine-unknown-linux-musl"
}

own_architecture() {
    if [[ $(uname --machine) == aarch64 ]]; then echo arm64; else echo amd64; fi
}

other_architecture() {
    if [[ $(uname --machine) == aarch64 ]]; then echo amd64; else echo arm64; fi
}

# Usage: build_image ARCHITECTURE
# Builds in a directory that holds the binary and the licence alone, as an image has them: any target directory will
# do then, and no builder has to be sent the sources. The time of the build and the builder's
# version stay out of the image: the same binary gives the same digest.
build_image() (
    builder=$(image_builder)
    built="$target_dir/$(target_of "$1")/release/bots-mover"
    archive=$(image_archive "$1")
    options=()
    context=$(mktemp --directory)
    trap 'rm --recursive --force "$context"' EXIT
    export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" BUILDX_NO_DEFAULT_ATTESTATIONS=1
    mkdir --mode 755 "$context/rootfs"
    mkdir --mode 1777 "$context/rootfs/tmp"
    install --mode 755 "$built" "$context/rootfs/bots-mover"
    install --mode 644 src/LICENSE "$context/rootfs"
    find "$context" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
    # Docker reads the variable.
    if [[ $builder != docker ]]; then
        options=(--timestamp "$SOURCE_DATE_EPOCH" --identity-label=false)
    fi
    # shellcheck disable=SC2086 # the builder is a command and its first arguments
    $builder build --no-cache --platform "linux/$1" --file Dockerfile --target prebuilt \
        --build-arg "VERSION=$version" "${options[@]}" --tag "$image" "$context"
    rm --force "$archive"
    save_image "$builder" "$image" "$archive"
    echo "image: $image for $1, made by $builder"
    echo "saved: $archive ($(stat --format %s "$archive") bytes)"
    echo "digest: sha256:$(image_digest "$archive")"
)

# Usage: save_image BUILDER NAME FILE
save_image() {
    if [[ $1 == docker ]]; then
        docker save --output "$3" "$2"
    else
        # shellcheck disable=SC2086 # the builder is a command and its first arguments
        $1 push --quiet "$2" "docker-archive:$3:$2"
    fi
}

# What any node can import: 'k3s ctr images import', 'docker load', 'podman load'.
image_archive() {
    echo "$target_dir/bots-mover-$version-$1.tar"
}

# Of the image's config, which names its layers by theirs.
image_digest() {
    tar --extract --to-stdout --file "$1" manifest.json |
        grep --only-matching '"Config":"[^"]*' | grep --only-matching '[0-9a-f]\{64\}'
}

# Prints the start of a command that builds an image.
image_builder() {
    if has docker && docker info >/dev/null 2>&1; then
        echo "docker"
    else
        manifest_builder
    fi
}

# The same, of those that can put images together. Overlay storage is not to be had everywhere, such
# as in a container; vfs is. podman's own notes may already say that it uses another storage: they
# lie in the root of the storage, so another root is the last resort.
manifest_builder() {
    local builder storage
    for storage in "" "--storage-driver vfs" "--storage-driver vfs --root $tools_dir/images"; do
        for builder in podman buildah; do
            # shellcheck disable=SC2086 # options
            if has "$builder" && $builder $storage info >/dev/null 2>&1; then
                echo "$builder${storage:+ $storage}"
                return
            fi
        done
    done
    return 1
}

# --- testing ---

# This machine's own image comes last, so that it is the one that keeps the name.
test_images() {
    local own other machine
    own=$(own_architecture)
    other=$(other_architecture)
    machine=$(machine_of "$other")
    if get "$machine-compiler"; then
        step "release binary for $other" build_binary "$(target_of "$other")"
        step "the binary for $other is static and small" check_binary "$(target_of "$other")"
        if get "$machine-emulator"; then
            step "tests: the core with the binary for $other" run_emulated_tests "$machine"
        else
            leave_out "tests with the binary for $other" "no qemu-$machine-static"
        fi
    else
        leave_out "binary and image for $other" "no $machine-linux-gnu-gcc with a libc"
        other=""
    fi
    if ! get image-builder; then
        leave_out "images" "no docker with a reachable engine, no podman and no buildah"
        return
    fi
    if manifest_builder >/dev/null; then
        step "image from source alone" check_image_from_source
    else
        leave_out "image from source alone" "no podman and no buildah"
    fi
    if [[ -n "$other" ]]; then step "image for $other" check_image "$other"; fi
    step "image for $own" check_image "$own"
    if find_container; then
        step "the image in a container, as kube/base runs it" check_container
    else
        leave_out "the image in a container" "no docker or podman here that can run one"
    fi
    if [[ -n "$other" ]] && get manifest-builder docker-registry; then
        step "both images in a registry" check_push
    else
        leave_out "images in a registry" "no docker-registry, or nothing to put images together"
    fi
}

check_image_from_source() {
    need curl python3
    tests/image/source.sh "$(manifest_builder)" "$image" "$version" "$(own_architecture)"
}

# Usage: check_image ARCHITECTURE. Builds it twice.
check_image() {
    local archive digest
    need python3
    archive=$(image_archive "$1")
    SOURCE_DATE_EPOCH=0 build_image "$1"
    digest=$(image_digest "$archive")
    SOURCE_DATE_EPOCH=0 build_image "$1" >/dev/null 2>&1
    [[ $(image_digest "$archive") == "$digest" ]] ||
        fail "two builds of the image for $1 have two digests"
    python3 tests/image/contents.py "$archive" "$1" "$version"
}

# Sets what tests/image/bots-mover.sh needs to run the image: the first way that works. Where we
# are in a container ourselves, podman may find no systemd and have no right to raise limits.
find_container() {
    local builder
    builder=$(image_builder)
    export CONTAINER=$builder RUN_OPTIONS="" IMAGE=$image
    if [[ $builder == docker ]]; then
        image_runs && return
        builder=podman
    fi
    get podman || return 1
    # Where buildah has its images, podman has them, too.
    CONTAINER="podman${builder#"${builder%% *}"}"
    image_runs && return
    get runc || return 1
    CONTAINER+=" --cgroup-manager cgroupfs --runtime runc"
    RUN_OPTIONS="--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
    image_runs
}

image_runs() {
    [[ $(tests/image/bots-mover.sh --version 2>/dev/null) == "bots-mover $version" ]]
}

check_container() {
    need curl minio
    tests/demo/run.sh tests/image/bots-mover.sh "$(command -v minio)"
    tests/image/stop.sh
}
