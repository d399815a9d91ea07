#!/usr/bin/env bash
# Builds, shows and tests bots-mover. './build.sh help' lists the commands.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target="$(uname --machine)-unknown-linux-musl"
readonly target
readonly target_dir="${CARGO_TARGET_DIR:-target}"
readonly binary="$target_dir/$target/release/bots-mover"
version=$(sed --quiet '0,/^version = "\(.*\)"/s//\1/p' Cargo.toml)
readonly version
# The modules of tests/it that an emulated program has to pass. Nearly all of them would, but not
# where strace looks at system calls or threads are counted: there it meets the emulator's own.
readonly emulated_tests=(moves:: policies:: rules:: names:: listing:: signals::)
# Older MinIO, by their names in .ci/tools.sh, and the modules of tests/it that run against each: the
# oldest that is promised, and one that ignores conditions and new checksums and is told so.
readonly old_minios=(
    "minio-2025 moves:: policies:: names:: listing:: honesty::"
    "minio-2023 listing:: honesty::"
)

# What the steps need, and how it comes here; 'step' itself and small checks; images and where they
# go; the long runs.
# shellcheck source=.ci/tools.sh
source .ci/tools.sh
# shellcheck source=.ci/steps.sh
source .ci/steps.sh
# shellcheck source=tests/image/images.sh
source tests/image/images.sh
# shellcheck source=tests/image/push.sh
source tests/image/push.sh
# shellcheck source=tests/e2e/e2e.sh
source tests/e2e/e2e.sh
# shellcheck source=tests/fuzz/torture.sh
source tests/fuzz/torture.sh
# shellcheck source=tests/bench/bench.sh
source tests/bench/bench.sh

main() {
    case "${1:-}" in
        "") build_all ;;
        image) build_images "${@:2}" ;;
        push) push_images "${@:2}" ;;
        demo) run_demo ;;
        test) run_tests ;;
        torture) run_torture "${@:2}" ;;
        e2e)
            [[ -n "${KUBECONFIG:-}" ]] || fail "e2e needs a cluster: KUBECONFIG is not set"
            build_images
            run_e2e
            ;;
        vm)
            find_vm_tool || fail "vm needs what makes virtual machines: VM_TOOL is not set"
            build_binary
            run_vm "${@:2}"
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
    cat <<'TEXT'
Usage: ./build.sh [COMMAND [ARGUMENT ...]]

  (none)   build the static release binary, and the image if docker, podman or buildah is there
  image    build both; no builder for the image is an error. 'image arm64', 'image amd64 arm64':
           for these machines, whatever this one is. Each is also saved as target/bots-mover-VERSION-ARCHITECTURE.tar
  push     'push REGISTRY/NAME': the images for both machines under one name, and their digests
  demo     move sample EDI files with a throwaway MinIO, in both directions, and check every byte
  test     everything that CI checks; on a cluster too, where KUBECONFIG names one
  torture  the long versions of the tests that break, crash and feed the program, and the fuzz
           targets, and volumes in a virtual machine for some hours, with the totals of all:
           'torture TIMES SECONDS' multiplies rounds and seeds (5) and gives each fuzz target so
           many seconds (240; 0: none)
  e2e      only what 'test' does on the cluster; tests/e2e/run.sh tells what that needs
  vm       only what 'test' does in a virtual machine; tests/vm/run.sh tells what that needs
  bench    measure the program beside rclone and mc; 'bench ROW RUNS' measures one kind of work
           only, or 'all', that many times (3), 'bench scale' how cost grows, 'bench shards' what
           several processes bring and what a listing costs each, 'bench plots' draws the
           tables; tests/bench/README.md
  help     this text
TEXT
}

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

# --- building ---

build_all() {
    build_binary
    if image_builder >/dev/null; then
        build_image "$(own_architecture)"
    else
        echo "no image: found no docker with a reachable engine, no podman and no buildah"
    fi
}

# Usage: build_binary [TARGET]
build_binary() {
    local built="$target_dir/${1:-$target}/release/bots-mover"
    cargo_release "${1:-$target}"
    echo "binary: $built ($(stat --format %s "$built") bytes)"
}

# Usage: cargo_release TARGET [cargo option ...]
cargo_release() {
    local name=${1//-/_} machine=${1%%-*} remap
    if has rustup && [[ $(rustup target list --installed) != *"$1"* ]]; then
        rustup target add "$1"
    fi
    local compiler="CC_$name" linker="CARGO_TARGET_${name^^}_LINKER"
    if [[ "$1" != "$target" ]]; then
        if [[ -z "${!compiler:-}" ]]; then need "$machine-compiler"; fi
        export "$compiler=${!compiler:-$machine-linux-gnu-gcc}"
        export "$linker=${!linker:-$machine-linux-gnu-gcc}"
    elif [[ -z "${!compiler:-}" ]] && ! has musl-gcc; then
        export "$compiler=gcc"
    fi
    # Places of source code are part of a binary: where Cargo keeps it must not make a difference.
    remap="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    cargo build --release --locked --target "$1" --config "target.$1.rustflags = ['$remap']" "${@:2}"
}

run_demo() {
    need curl minio
    build_binary
    tests/demo/run.sh "$binary" "$(command -v minio)"
}

# --- testing ---

run_tests() {
    local name
    step "format: cargo fmt --check" check_format
    step "shell scripts: shellcheck" check_scripts
    step "lints: cargo clippy" check_lints
    step "documentation: cargo doc" check_docs
    step "release binary for $target" build_binary
    step "the binary is static and small" check_binary
    step "no async runtime among the dependencies" check_dependencies
    test_images
    step "tests: cargo test" run_cargo_tests
    step "tests: what the release binary costs" run_cost_tests
    step "charts: Mermaid's own parser" check_charts
    for name in "${old_minios[@]}"; do
        # shellcheck disable=SC2086 # these are words
        step "tests: with ${name%% *}" run_old_minio_tests $name
    done
    step "demo" run_demo
    if find_vm_tool; then
        step "vm: volumes in a virtual machine" run_vm
    else
        leave_out "vm" "no VM_TOOL"
    fi
    if [[ -n "${KUBECONFIG:-}" ]]; then
        step "e2e: on the cluster of $KUBECONFIG" run_e2e
    else
        leave_out "e2e" "no KUBECONFIG"
    fi
    tell_totals
}

# Some tests watch system calls, kill the program at one of them, count instructions, mount a
# filesystem, or ask the tools of others what they make of ours.
run_cargo_tests() {
    local skipped=()
    need minio mc python3 strace valgrind unshare fuse kustomize kubernetes-validate
    need prometheus pushgateway
    if ! get bots; then
        leave_out "tests beside Bots" "no ${bots_packages[*]} for Python 3.9 to 3.11"
        skipped=(--skip bots::)
    fi
    cargo test --locked -- "${skipped[@]}"
}

# Usage: run_emulated_tests MACHINE
run_emulated_tests() {
    need minio strace unshare
    BOTS_MOVER_BIN="$(realpath "$target_dir/$1-unknown-linux-musl/release/bots-mover")" \
        BOTS_MOVER_BIN_RUNNER="qemu-$1-static" \
        cargo test --locked --test it -- "${emulated_tests[@]}"
}

main "$@"
