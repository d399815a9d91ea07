# shellcheck shell=bash
# './build.sh bench': what bench.py and shards.py need. Of build.sh it knows 'target', 'target_dir',
# 'binary' and the commands that build, and the files of .ci/.

run_bench() {
    local examples="$target_dir/$target/release/examples"
    need python3
    if [[ "${1:-}" == plots ]]; then
        python3 tests/bench/bench.py plots
        return
    fi
    need minio mc
    build_binary
    cargo_release "$target" --examples
    local script=bench.py
    local given=(--mover "$binary" --mc "$(command -v mc)" --minio "$(command -v minio)"
        --delay "$examples/delay" --floor "$examples/floor")
    if [[ "${1:-}" == shards ]]; then
        script=shards.py
        shift
    else
        need rclone
        given+=(--rclone "$(command -v rclone)")
    fi
    python3 "tests/bench/$script" "${given[@]}" "$@"
}
