# shellcheck shell=bash
# How './build.sh test' tells of its steps, and the checks that are no more than a command or two.
# Of build.sh it knows 'target', 'target_dir', 'binary' and 'fail'.

readonly size_limit_bytes=4000000
readonly async_runtimes='tokio|async-std|smol|hyper|futures-executor|reqwest|aws-sdk[a-z0-9-]*'
steps_done=0
# What a test run had to leave out, and why.
not_run=()

# Usage: step TITLE COMMAND [ARGUMENT ...]
step() {
    local title=$1 started=$SECONDS
    printf '\n==== %d. %s\n' "$((++steps_done))" "$title"
    "${@:2}"
    printf '==== %d. done in %d s\n' "$steps_done" "$((SECONDS - started))"
}

# Usage: leave_out WHAT WHY. The last lines of a test run say it again.
leave_out() {
    not_run+=("$1: $2")
    printf '\n==== NOT RUN: %s: %s\n' "$1" "$2"
}

tell_totals() {
    printf '\nall %d steps passed in %d s\n' "$steps_done" "$SECONDS"
    if ((${#not_run[@]} > 0)); then printf 'NOT RUN: %s\n' "${not_run[@]}"; fi
}

# Sets VM_TOOL where it is not set and the tool lies beside the project.
find_vm_tool() {
    export VM_TOOL="${VM_TOOL:-../shared/tools/vm-lab/vm.sh}"
    [[ -x "$VM_TOOL" && -x tests/vm/run.sh ]] && VM_TOOL=$(realpath "$VM_TOOL")
}

check_format() {
    need rustfmt
    cargo fmt --check
}

# A script that others source is not executable, and is looked at through them.
check_scripts() {
    local scripts
    need shellcheck
    mapfile -t scripts < <(find build.sh .ci src tests kube -type f -executable \
        '(' -name '*.sh' -or -path .ci/run ')')
    shellcheck --version | sed --quiet '2p'
    shellcheck --external-sources --check-sourced "${scripts[@]}"
    printf '%s\n' "${scripts[@]}"
}

check_lints() {
    need clippy
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
    need readelf
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

# Bounds of memory, system calls and instructions, of what is shipped.
run_cost_tests() {
    need minio python3 strace valgrind
    BOTS_MOVER_BIN="$(realpath "$binary")" cargo test --locked --test it -- cost::
}

# Usage: run_old_minio_tests NAME MODULE ...
run_old_minio_tests() {
    local module folder
    need "$1" strace unshare mc
    module=$(column 3 "$1")
    folder=$(folder_of "${module#* }")
    BOTS_MOVER_MINIO="$folder/minio" PATH="$folder:$PATH" \
        cargo test --locked --test it -- "${@:2}"
}

# VM_TOOL makes virtual machines; tests/vm/run.sh tells how it is called.
run_vm() {
    need minio curl
    tests/vm/run.sh "$binary" "$(command -v minio)" "$@"
}

# What the tests left of 'bots-mover graph', read by Mermaid's own parser.
check_charts() {
    if get mermaid; then
        node tests/graph/mermaid.mjs "$tools_dir/mermaid/node_modules" "$target_dir/tmp/charts"
    else
        leave_out "charts read by Mermaid" "no node, or npm cannot install $mermaid"
    fi
}
