#!/usr/bin/env bash
# The program's main job, shown on a throwaway MinIO: orders from a bucket into a directory,
# invoices from a directory into the bucket. Compares every byte, leaves nothing behind.
# Usage: run.sh BOTS_MOVER MINIO (two binaries); './build.sh demo' is the comfortable way.
set -euo pipefail

bots_mover=$(realpath "$1")
minio=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly bucket=edi
work=$(mktemp --directory "${TMPDIR:-/tmp}/mover-demo.XXXXXX")
bots="$work/bots"
minio_pid=""
export TMPDIR="$work/staging"

export MINIO_ROOT_USER=demo-access-key MINIO_ROOT_PASSWORD=demo-secret-key
export MINIO_ACCESS_KEY=$MINIO_ROOT_USER MINIO_SECRET_KEY=$MINIO_ROOT_PASSWORD
# What the caller's shell has set for a real MinIO must not reach this one.
unset MINIO_BUCKET MINIO_REGION MINIO_SESSION_TOKEN MINIO_VERIFY MINIO_ADDRESSING_STYLE
unset BOTS_MOVER_CONFIG BOTS_MOVER_LOG_FORMAT BOTS_MOVER_LOG_LEVEL
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

main() {
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    start_minio
    fill

    headline "Before: what partners sent, and what Bots wrote"
    show
    headline "The rules (tests/demo/config.yaml)"
    grep --invert-match '^#' config.yaml | indent
    headline "The run: bots-mover --config config.yaml (shown without dates, the directory as ~)"
    run | tee "$work/log" | shorten
    headline "After"
    show
    headline "Checks"
    check
}

headline() {
    printf '\n== %s\n' "$1"
}

indent() {
    sed 's/^/   /'
}

# So that a log line fits a terminal better.
shorten() {
    sed "s|$bots|~|g; s|^[0-9-]*T||" | indent
}

fail() {
    echo "demo: $1" >&2
    if [[ -f "$work/log" ]]; then cat "$work/log" >&2; fi
    exit 1
}

clean_up() {
    if [[ -n "$minio_pid" ]]; then
        kill "$minio_pid" 2>/dev/null || true
        wait "$minio_pid" 2>/dev/null || true
    fi
    rm --recursive --force "$work"
}

# A port can be taken between the choice and the start: MinIO then ends, and another one is tried.
start_minio() {
    local port
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 12000))
        export MINIO_ENDPOINT="http://127.0.0.1:$port"
        MINIO_BROWSER=off "$minio" server --address "127.0.0.1:$port" "$work/minio" \
            >"$work/minio.log" 2>&1 &
        minio_pid=$!
        for ((tries = 0; tries < 300; tries++)); do
            if ! kill -0 "$minio_pid" 2>/dev/null; then break; fi
            if s3 "" --output /dev/null 2>/dev/null; then return; fi
            sleep 0.1
        done
    done
    cat "$work/minio.log" >&2
    fail "MinIO did not start"
}

# curl signs requests itself, so that the checks share no code with the program.
# Usage: s3 PATH_AND_QUERY [curl option ...]
s3() {
    curl --silent --show-error --fail --user "$MINIO_ACCESS_KEY:$MINIO_SECRET_KEY" \
        --aws-sigv4 aws:amz:us-east-1:s3 "$MINIO_ENDPOINT/$1" "${@:2}"
}

fill() {
    local file
    s3 "$bucket" --request PUT
    while read -r file; do
        s3 "$bucket/$file" --upload-file "$file"
    done < <(find in -type f | sort)
    mkdir "$bots" "$TMPDIR"
    cp --recursive outbound "$bots/"
    sed "s|/home/bots/.bots|$bots|" config.yaml >"$work/config.yaml"
}

run() {
    "$bots_mover" --config "$work/config.yaml"
}

keys() {
    s3 "$bucket?list-type=2" | grep --only-matching '<Key>[^<]*' | sed 's/<Key>//'
}

show() {
    echo "   bucket s3://$bucket"
    keys | sed 's/^/      /'
    echo "   directory ~"
    (cd "$bots" && find . -type f -printf '      %P\n' | sort)
}

check() {
    local file copy stem moved=0
    while read -r file; do
        stem=$(basename "$file" .edi)
        case "$file" in
            in/x12/850/*)
                copy=$(find "$bots/inbound/850" -name "$stem.*Z.edi")
                ;;
            in/edifact/orders/*)
                copy="$bots/inbound/orders/$stem.edi"
                ;;
            outbound/810/*)
                copy="$work/fetched"
                s3 "$bucket/out/x12/810/$stem.edi" --output "$copy"
                ;;
        esac
        cmp "$file" "$copy" || fail "$file was changed or lost"
        moved=$((moved + 1))
    done < <(find in outbound -type f -name '*.edi' | sort)
    echo "   $moved files moved, each compared with its original: not a byte differs"

    [[ $(keys | grep '^in/') == "in/x12/850/harbour_0103.edi.tmp" ]] ||
        fail "the bucket still holds what was to be moved, or lost what was not"
    [[ -z $(find "$bots/outbound" -type f) ]] || fail "the outbound directory is not empty"
    [[ -z $(find "$bots" "$TMPDIR" -type f \( -name '.*' -o -path "$TMPDIR/*" \)) ]] ||
        fail "temporary files are left"
    echo "   no source is left but the unfinished upload, which no rule asks for; no temporary either"

    run >"$work/log" || fail "the second run failed"
    if grep --quiet 'event=moved' "$work/log"; then fail "a second run moved something"; fi
    echo "   a second run finds nothing to do:"
    grep 'event=run_done' "$work/log" | shorten
}

main
