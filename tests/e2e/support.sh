# shellcheck shell=bash
# What the checks of run.sh are written with. Its variables are known here: 'work', a directory of
# its own; 'root', 'minio_pod' and 'bucket', the MinIO and the bucket that are meant, 'doing' and
# 'checks_done'.
# shellcheck disable=SC2154

# --- checks ---

# TITLE FUNCTION [ARGUMENT ...]: one line on the terminal; what was said meanwhile is in the log.
check() {
    local started=$SECONDS
    doing=$1
    printf '\n==== %s\n' "$doing"
    "${@:2}"
    printf 'ok %d %s (%d s)\n' "$((++checks_done))" "$doing" "$((SECONDS - started))" >&3
}

# WHAT IT-IS WANTED
expect() {
    [[ "$2" == "$3" ]] || complain "$1: it is '$2', not '$3'"
}

# WHAT TEXT PART ...
expect_parts() {
    local part
    for part in "${@:3}"; do
        [[ "$2" == *"$part"* ]] || complain "$1: nothing of '$part' in: $2"
    done
}

complain() {
    echo "$1" >&2
    return 1
}

# SECONDS COMMAND ...: tries it again and again.
eventually() {
    local end=$((SECONDS + $1))
    until "${@:2}" >"$work/attempt" 2>&1; do
        if ((SECONDS >= end)); then
            cat "$work/attempt"
            complain "waited $1 s in vain for: ${*:2}"
            return
        fi
        sleep 0.3
    done
}

# --- the manifests, as a user has them ---

# ENVIRONMENT: the words at the top of kube/README.md, for the commands below them.
# shellcheck disable=SC2034 # these read them
enter() {
    environment=$1
    namespace=$(sed --quiet 's/^namespace: //p' "$root/kube/overlays/$1/kustomization.yaml")
    bucket=$(sed --quiet 's/.*MINIO_BUCKET, value: \(.*\) }/\1/p' \
        "$root/kube/overlays/$1/bucket_patch.yaml")
}

# PATTERN: runs the one command of kube/README.md that has it; it sees the caller's variables.
readme() {
    local commands words='kubectl \|current=\|job=\|until \|printf \|sed \|mc '
    commands=$(sed --quiet "s/^ *\($words\)/\1/p" kube/README.md |
        grep --extended-regexp -e "$1" | sort --unique) ||
        complain "kube/README.md has no command with: $1"
    expect "commands of kube/README.md with '$1'" "$(wc --lines <<<"$commands")" 1
    echo "$ $commands"
    eval "$commands"
}

# FILE OLD NEW: an edit of the manifests that has to find its place.
edit() {
    grep --quiet --fixed-strings -- "$2" "$1" || complain "$1 has no '$2'"
    local text
    text=$(<"$1")
    printf '%s\n' "${text//"$2"/"$3"}" >"$1"
}

# --- jobs and pods ---

readonly config_map_of_template='.template.spec.volumes[?(@.name=="config")].configMap.name'

# NAMESPACE JOB WANTED: how it ends, as 'Complete' or 'Failed/' and the reason.
job_ends() {
    eventually 240 has_ended "$1" "$2"
    expect "end of job $2" "$(ending "$1" "$2")" "$3"
}

has_ended() {
    [[ -n "$(ending "$1" "$2")" ]]
}

# A reason for completion is only known to Kubernetes 1.31 and later.
ending() {
    local each='{range .status.conditions[?(@.status=="True")]}{.type}/{.reason}{"\n"}{end}'
    kubectl get job "$2" --namespace "$1" --output "jsonpath=$each" |
        sed --quiet 's|^Complete/.*|Complete|p; /^Failed/p'
}

# NAMESPACE JOB JSONPATH
of_job() {
    kubectl get job "$2" --namespace "$1" --output "jsonpath=$3"
}

# NAMESPACE JOB: its pods that are there.
pods_of() {
    kubectl get pods --namespace "$1" --selector "batch.kubernetes.io/job-name=$2" \
        --output 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}'
}

# NAMESPACE JOB PART: whether the log of its pod has that. Reads all of it: a pipe that is closed
# early would make kubectl fail.
job_says() {
    expect_parts "log of $2" "$(kubectl logs "job/$2" --namespace "$1")" "$3"
}

# NAMESPACE [CRONJOB]: as README.md says; 'resume' is the opposite.
suspend() {
    kubectl patch cronjob "${2:-bots-mover}" --namespace "$1" --patch '{"spec":{"suspend":true}}'
}

resume() {
    kubectl patch cronjob bots-mover --namespace "$1" --patch '{"spec":{"suspend":false}}'
}

# NAMESPACE: the ConfigMap that the CronJob names.
config_map() {
    kubectl get cronjob bots-mover --namespace "$1" --output \
        "jsonpath={.spec.jobTemplate.spec$config_map_of_template}"
}

# NAMESPACE JOB
config_map_of_job() {
    of_job "$1" "$2" "{.spec$config_map_of_template}"
}

# --- both ends ---

# ARGUMENT ...: mc beside MinIO; the buckets are below 'minio/'.
mc() {
    beside_minio mc --insecure --quiet "$@"
}

# COMMAND ...: what is to be written goes in its arguments. 'kubectl exec --stdin' can give a command
# that reads at once an empty standard input, and says nothing.
beside_minio() {
    kubectl exec "$minio_pod" --namespace minio -- "$@"
}

# TEXT FILE
write_beside_minio() {
    # shellcheck disable=SC2016 # the shell in the pod is to see its own arguments
    beside_minio sh -c 'printf "%s\n" "$0" >"$1"' "$1" "$2"
}

# TEXT KEY
put() {
    # shellcheck disable=SC2016 # the shell in the pod is to see its own arguments
    beside_minio sh -c 'printf %s "$0" | mc --quiet --insecure pipe "$1"' "$1" "minio/$bucket/$2"
}

# KEY TEXT
bucket_has() {
    expect "object $1" "$(mc cat "minio/$bucket/$1")" "$2"
}

# KEY
bucket_lacks() {
    ! mc stat "minio/$bucket/$1" || complain "the object $1 is still there"
}

# NAMESPACE NAME TEXT: Bots wrote a file and has left it alone for long.
bots_writes() {
    bots "$1" "printf %s '$3' >outbound/810/$2 && touch -t 202001010000 outbound/810/$2"
}

# NAMESPACE NAME TEXT: Bots reads a file and removes it.
bots_reads() {
    expect "inbound/850/$2" "$(bots "$1" "cat inbound/850/$2 && rm inbound/850/$2")" "$3"
}

# NAMESPACE SHELL-TEXT: what Bots does in its directory.
bots() {
    kubectl exec bots --namespace "$1" -- sh -c "$2"
}

# NAMESPACE POD ADDRESS PORT: whether the pod gets through, as 'open' or 'closed'.
reach() {
    # shellcheck disable=SC2016 # the shell in the pod is to see its own arguments
    kubectl exec "$2" --namespace "$1" -- sh -c \
        'nc -w 3 "$0" "$1" -e true && echo open || echo closed' "$3" "$4" 2>/dev/null
}

# NAMESPACE POD: the cluster notes it a moment after the pod runs.
address() {
    eventually 60 has_address "$1" "$2"
    cat "$work/attempt"
}

has_address() {
    kubectl get pod "$2" --namespace "$1" --output 'jsonpath={.status.podIP}' | grep .
}
