#!/usr/bin/env bash
# A run that waits an hour for its next attempt, as process 1 of a container, is told to stop: it
# must end at once, with exit 143.
# Usage: stop.sh, with CONTAINER, RUN_OPTIONS and IMAGE as for bots-mover.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly name="bots-mover-stop-$$" limit_s=20
log=$(mktemp)
trap clean_up EXIT

clean_up() {
    container rm --force "$name" >/dev/null 2>&1 || true
    rm --force "$log"
}

container() {
    # shellcheck disable=SC2086 # a command and options
    $CONTAINER "$@"
}

fail() {
    echo "stop.sh: $1" >&2
    cat "$log" >&2
    exit 1
}

# Nobody listens there.
export MINIO_ENDPOINT=http://127.0.0.1:9 MINIO_ACCESS_KEY=key MINIO_SECRET_KEY=secret
RUN_OPTIONS="$RUN_OPTIONS --name $name" ./bots-mover.sh move s3://edi/in /tmp/in \
    --retries 1 --wait-seconds 3600 >"$log" 2>&1 &
readonly run=$!
for ((tries = 0; ; tries++)); do
    if grep --quiet event=retry "$log"; then break; fi
    ((tries < 900)) || fail "it never got to its second attempt"
    kill -0 "$run" 2>/dev/null || fail "it ended by itself"
    sleep 0.1
done

started=$SECONDS
container kill --signal TERM "$name" >/dev/null
code=0
wait "$run" || code=$?
((code == 143)) || fail "exit $code, not 143"
((SECONDS - started <= limit_s)) || fail "it took $((SECONDS - started)) s"
grep --quiet 'event=run_done.* exit=143' "$log" || fail "no last line"
echo "SIGTERM as process 1: exit 143 within $((SECONDS - started)) s"
