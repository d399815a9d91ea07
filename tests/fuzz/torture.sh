# shellcheck shell=bash
# './build.sh torture': the long tests, the model and the fuzz targets, and the totals of all. Of
# build.sh it knows 'target_dir' and 'fail', and the files of .ci/.

# The tests that tell what they tried, and grow with BOTS_MOVER_TORTURE.
readonly long_tests=(crash:: requests:: sources:: movers:: properties:: power:: nfs::)
# The targets beside this file, and how long each of them runs where nothing else is said.
readonly fuzz_targets=(config pattern key listing log environment)
readonly fuzz_seconds=240
# Seeds of the model are cheap.
readonly model_factor=20

# The tests tell what they tried in lines that begin with 'tried'; the fuzz targets get one each.
run_torture() {
    local times=${1:-5} seconds=${2:-$fuzz_seconds} log
    log="$(realpath --canonicalize-missing "$target_dir")/torture.log"
    mkdir --parents "$(dirname "$log")"
    : >"$log"
    step "long tests: BOTS_MOVER_TORTURE=$times" run_long_tests "$times" "$log"
    step "model: $((times * model_factor)) times its seeds" run_model "$((times * model_factor))" "$log"
    if ((seconds > 0)); then
        step "fuzz targets: $seconds s each" fuzz "$seconds" "$log"
    fi
    if find_vm_tool; then
        step "volumes in a virtual machine, for long" run_long_vm "$log"
    else
        leave_out "vm" "no VM_TOOL"
    fi
    step "totals" totals "$log"
}

run_long_tests() {
    need minio mc python3 strace valgrind unshare fuse
    BOTS_MOVER_TORTURE=$1 cargo test --locked -- --show-output "${long_tests[@]}" 2>&1 |
        tee --append "$2" |
        grep --extended-regexp '^(test |tried |failures:|error)' ||
        true
    # The pipe hides how the tests ended.
    if grep --quiet '^test result: FAILED\|^error' "$2"; then fail "see $2"; fi
    grep --quiet '^tried ' "$2" || fail "no test told what it tried; see $2"
}

# At least 20 power cuts on each volume, in and out; some hours.
run_long_vm() {
    build_binary
    run_vm long | tee --append "$1"
}

run_model() {
    BOTS_MOVER_TORTURE=$1 cargo test --locked --profile torture --test model | tee --append "$2"
    sed --quiet 's|^model: \([0-9]*\) seeds in .*|tried model/seeds \1|p' "$2" | tee --append "$2"
}

# Corpus and findings stay beside what Cargo makes. Without sanitizers: the program has no unsafe
# code, and panics are what is looked for.
fuzz() {
    local seconds=$1 log=$2 name corpus folder seeds
    need nightly cargo-fuzz
    folder="$(realpath --canonicalize-missing "$target_dir")/fuzz"
    CARGO_TARGET_DIR=$folder cargo +nightly fuzz build --fuzz-dir tests/fuzz --sanitizer none
    for name in "${fuzz_targets[@]}"; do
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
