# shellcheck shell=bash
# './build.sh bench': what bench.py needs. Of build.sh it knows 'target', 'target_dir', 'binary' and
# the commands that build, and the files of .ci/.

run_bench() {
    local examples="$target_dir/$target/release/examples"
    need python3
    if [[ "${1:-}" == plots ]]; then
        python3 tests/bench/bench.py plots
        return
    fi
    need minio mc rclone
    build_binary
    cargo_release "$target" --examples
    python3 tests/bench/bench.py --mover "$binary" --rclone "$(command -v rclone)" \
        --mc "$(command -v mc)" --minio "$(command -v minio)" \
        --delay "$examples/delay" --floor "$examples/floor" "$@"
}
