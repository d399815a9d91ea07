# shellcheck shell=bash
# What the checks of tests/vm are written with: a MinIO, its objects through curl (which signs its
# own requests, so that the checks share no code with the program), the guest, and verdicts.
# Its variables are known here: 'work', a directory of its own; 'VM_TOOL', the machine.
# shellcheck disable=SC2154,SC2034

passed=0
failed=0
fs=""
log=""

# --- verdicts ---

# CLAIM GOT WANTED
is() {
    if [[ "$2" == "$3" ]]; then
        passed=$((passed + 1))
        printf 'ok %s: %s [%s]\n' "$fs" "$1" "$(shortened "$2")"
    else
        failed=$((failed + 1))
        printf 'not ok %s: %s\n' "$fs" "$1"
        printf '  # wanted: %s\n  # found:  %s\n' "$(shortened "$3")" "$(shortened "$2")"
        diff <(printf '%s\n' "$3") <(printf '%s\n' "$2") | sed 's/^/  # /' | head -n 12 || true
        printf '%s\n' "$log" | sed 's/^/  | /' | tail -n 40
    fi
}

# CLAIM TEXT PART: whether the text has the part.
has_part() {
    if [[ "$2" == *"$3"* ]]; then
        is "$1" "$3" "$3"
    else
        is "$1" "nothing of it" "$3"
    fi
}

# One line, and not a long one: of many checksums their number and the checksum of all.
shortened() {
    local lines
    lines=$(wc --lines <<<"$1")
    if ((lines > 1)); then
        printf '%d lines, sha256 %.12s' "$lines" "$(sha256sum <<<"$1")"
    else
        printf '%.90s' "$1"
    fi
}

# --- MinIO ---

# A port can be taken between the choice and the start: MinIO then ends, and another one is tried.
start_minio() {
    local tries
    export MINIO_ROOT_USER=vm-access-key MINIO_ROOT_PASSWORD=vm-secret-key
    for _ in 1 2 3 4 5; do
        minio_port=$((20000 + RANDOM % 12000))
        MINIO_BROWSER=off nice "$minio" server --address "127.0.0.1:$minio_port" "$work/minio" \
            >"$work/minio.log" 2>&1 &
        minio_pid=$!
        for ((tries = 0; tries < 600; tries++)); do
            if ! kill -0 "$minio_pid" 2>/dev/null; then break; fi
            if s3 "" --output /dev/null 2>/dev/null; then
                s3 "$bucket" --request PUT
                return
            fi
            sleep 0.1
        done
        kill "$minio_pid" 2>/dev/null || true
    done
    cat "$work/minio.log" >&2
    echo "vm: MinIO did not start" >&2
    exit 1
}

# PATH-AND-QUERY [curl option ...]
s3() {
    curl --silent --show-error --fail --noproxy '*' --user "$MINIO_ROOT_USER:$MINIO_ROOT_PASSWORD" \
        --aws-sigv4 aws:amz:us-east-1:s3 "http://127.0.0.1:$minio_port/$1" "${@:2}"
}

# PREFIX: the keys below it, less the prefix; at most 1000.
keys() {
    s3 "$bucket?list-type=2&prefix=${1//\//%2F}%2F" | grep --only-matching '<Key>[^<]*' |
        sed "s#<Key>$1/##" || true
}

# DIRECTORY PREFIX: puts all its files there, in one go.
put_all() {
    local file
    (cd "$1" && find . -type f -printf '%P\n') | while read -r file; do
        printf 'upload-file = "%s/%s"\nurl = "http://127.0.0.1:%s/%s/%s/%s"\n' \
            "$1" "$file" "$minio_port" "$bucket" "$2" "$file"
    done >"$work/curl"
    transfer
}

# PREFIX: checksums of all that is there, as the guest's 'sums' prints those of a directory.
object_sums() {
    local key
    rm --recursive --force "$work/objects"
    mkdir "$work/objects"
    keys "$1" | while read -r key; do
        printf 'output = "%s/objects/%s"\nurl = "http://127.0.0.1:%s/%s/%s/%s"\n' \
            "$work" "$key" "$minio_port" "$bucket" "$1" "$key"
    done >"$work/curl"
    transfer
    sums_here "$work/objects"
}

# What the file 'curl' says.
transfer() {
    if [[ ! -s "$work/curl" ]]; then return; fi
    curl --silent --show-error --fail --noproxy '*' --create-dirs \
        --user "$MINIO_ROOT_USER:$MINIO_ROOT_PASSWORD" --aws-sigv4 aws:amz:us-east-1:s3 \
        --config "$work/curl" >/dev/null
}

sums_here() {
    (cd "$1" && find . -type f -exec sha256sum {} +) | sed 's#  \./#  #' | sort --key 2
}

# DIRECTORY NUMBER [LARGE-BYTES]: makes files of mixed size: empty, small, of 128 KiB and a byte,
# some in directories, and one large one.
make_files() {
    local at size sizes=(0 1 100 700 3000 6001 20000 131073)
    mkdir --parents "$1/sub/deep"
    for ((at = 0; at < $2; at++)); do
        size=${sizes[at % ${#sizes[@]}]}
        head --bytes "$size" /dev/urandom >"$1/$( ((at % 5 == 4)) && echo sub/deep/)po$at.edi"
    done
    if (($# > 2)); then head --bytes "$3" /dev/urandom >"$1/large.edi"; fi
}

# --- the guest ---

# Usage: machine up OPTION ...
# A kernel that finds its emulated clock stopped, because the host is busy, gives up: it boots again.
machine() {
    local boots=1
    if [[ $1 == up ]]; then boots=3; fi
    until nice "$VM_TOOL" "$1" -n "$machine_name" "${@:2}"; do
        ((--boots > 0)) || return 1
        echo "vm: boots again" >&2
    done
}

# COMMAND ...: in the guest, with what guest.sh knows; what it prints.
guest() {
    machine exec -t "${limit:-300}" "fs=$fs bucket=$bucket; . /share/guest.sh; $*"
}

# COMMAND ...: the same; what it says is the log of the checks that follow, and 'status' its exit.
does() {
    status=0
    log=$(guest "$*" 2>&1) || status=$?
}

# What the guest reads. Nothing of it is written while a guest runs.
fill_share() {
    mkdir "$work/share"
    cp "$binary" "$work/share/bots-mover"
    cp guest.sh "$work/share/guest.sh"
    cat >"$work/share/settings" <<END
export MINIO_ENDPOINT=http://10.0.2.2:$minio_port MINIO_ACCESS_KEY=$MINIO_ROOT_USER
export MINIO_SECRET_KEY=$MINIO_ROOT_PASSWORD TMPDIR=/tmp BOTS_MOVER_LOG_LEVEL=info
VM_BREAK=${VM_BREAK:-}
END
}

# From /tmp a program starts faster than from the host's directory.
prepare_guest() {
    guest "cp /share/bots-mover /tmp/bots-mover && chmod 755 /tmp/bots-mover"
}

clean_up() {
    if [[ -z "$finished" ]]; then
        echo "vm: ended early, after $passed passed and $failed failed checks; last in the guest:"
        printf '%s\n' "$log" | tail -n 20
    fi
    if [[ -n "${machine_name:-}" ]]; then machine purge >/dev/null 2>&1 || true; fi
    if [[ -n "${minio_pid:-}" ]]; then
        kill "$minio_pid" 2>/dev/null || true
        wait "$minio_pid" 2>/dev/null || true
    fi
    rm --recursive --force "$work"
}

# Whether this is the long version.
is_long() {
    [[ "$length" == long ]]
}
