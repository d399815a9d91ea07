# shellcheck shell=bash
# The component 'sharded', in staging: its variables and functions are those of run.sh and
# support.sh.
# shellcheck disable=SC2154

readonly shards=edi-staging shards_first=10 shards_last=33

# What takes long: a shard that fails in each of its attempts, and one whose pod is deleted while it
# waits for its next attempt.
start_shards() {
    cp --recursive kube/overlays/staging kube/overlays/shards
    cat >>kube/overlays/shards/kustomization.yaml <<'EOT'
components: [../../components/sharded]
configMapGenerator:
  - name: bots-mover
    behavior: replace
    files: [config.yaml]
EOT
    bots "$shards" 'mkdir -p inbound/shards inbound/closed inbound/late outbound/shards &&
        chmod 555 inbound/closed inbound/late'
    bucket=$shards put "order 7" closed/po7.edi
    fill_bucket open
    fill_bucket late
    start_sharded closed 4 <<'EOT'
config:
  defaults:
    base_file_path: /home/bots/.bots
    exit_on_first_failure: false
    retries: 2
    wait_seconds: 1
  closed:
    src: { type: s3, path: closed }
    dest: { type: file, path: inbound/closed }
  open:
    src: { type: s3, path: open }
    dest: { type: file, path: inbound/open }
EOT
    start_sharded late 4 <<'EOT'
config:
  defaults: { base_file_path: /home/bots/.bots, retries: 100, wait_seconds: 1 }
  late:
    src: { type: s3, path: late }
    dest: { type: file, path: inbound/late }
EOT
    eventually 120 a_shard_waits
    kubectl delete pod "$(<waits)" --namespace "$shards" --grace-period 1 --timeout 60s
    bots "$shards" 'chmod 755 inbound/late'
}

# Leaves the name of the pod in the file 'waits'.
a_shard_waits() {
    local pod
    for pod in $(pods_of "$shards" shards-late); do
        if kubectl logs "$pod" --namespace "$shards" | grep 'event=retry'; then
            echo "$pod" >waits
            return
        fi
    done
    return 1
}

retried_shard() {
    job_ends "$shards" shards-late Complete
    expect "shards that are done" "$(of_job "$shards" shards-late '{.status.completedIndexes}')" 0-3
    expect "failed pods" "$(of_job "$shards" shards-late '{.status.failed}')" 1
    bots_has_orders late
    expect "what is left" "$(mc find "minio/$shards/late")" ""
    shards_took_each_once shards-late late 4
}

lost_shard() {
    local lost
    job_ends "$shards" shards-closed Failed/FailedIndexes
    lost=$(of_job "$shards" shards-closed '{.status.failedIndexes}')
    [[ "$lost" =~ ^[0-3]$ ]] || complain "the shards that failed: '$lost'"
    expect "failed pods" "$(of_job "$shards" shards-closed '{.status.failed}')" 3
    bucket=$shards bucket_has closed/po7.edi "order 7"
    # All that could be done was done, also by the shard that failed.
    bots_has_orders open
    bots "$shards" 'chmod 755 inbound/closed'
}

# Both ways; the first of the three also takes what the lost shard left.
shards_at_once() {
    local count
    for count in 1 2 4; do
        fill_bucket in/shards
        bots "$shards" "for n in \$(seq $shards_first $shards_last); do
            echo \"order \$n\" >outbound/shards/\$n.edi; done"
        start_sharded "$count" "$count" <<'EOT'
config:
  defaults: { base_file_path: /home/bots/.bots, retries: 2, wait_seconds: 1 }
  closed:
    src: { type: s3, path: closed }
    dest: { type: file, path: inbound/closed }
  in:
    src: { type: s3, path: in/shards }
    dest: { type: file, path: inbound/shards }
  out:
    src: { type: file, path: outbound/shards }
    dest: { type: s3, path: out/shards }
EOT
        job_ends "$shards" "shards-$count" Complete
        expect "pods" "$(pods_of "$shards" "shards-$count" | wc --lines)" "$count"
        shards_took_each_once "shards-$count" in "$count"
        shards_took_each_once "shards-$count" out "$count"
        bots_has_orders shards
        expect "objects" "$(beside_minio sh -c "mc --quiet --insecure find minio/$shards/out/shards |
            sort | xargs mc --quiet --insecure cat")" "$(orders)"
        expect "what is left in the bucket" "$(mc find "minio/$shards/in/shards")" ""
        expect "what Bots still has" "$(bots "$shards" 'ls -A outbound/shards')" ""
        bots "$shards" 'rm inbound/shards/*'
        mc rm --recursive --force "minio/$shards/out/shards"
    done
    expect "what the lost shard left" "$(bots "$shards" 'cat inbound/closed/po7.edi')" "order 7"
}

exit_2_of_shards() {
    start_sharded wrong 4 <<'EOT'
config:
  defaults: { base_file_path: /home/bots/.bots, retires: 2 }
  in:
    src: { type: s3, path: in/shards }
    dest: { type: file, path: inbound/shards }
EOT
    job_ends "$shards" shards-wrong Failed/PodFailurePolicy
    expect "shards that are done" "$(of_job "$shards" shards-wrong '{.status.completedIndexes}')" ""
}

# NAME COUNT, and the rules on standard input: a Job of so many shards from the CronJob, which stays
# suspended.
start_sharded() {
    cat >kube/overlays/shards/config.yaml
    sed --in-place "s/^\( *completions:\) .*/\1 $2/" kube/components/sharded/shards_patch.yaml
    kubectl apply --kustomize kube/overlays/shards
    kubectl create job "shards-$1" --from cronjob/bots-mover --namespace "$shards"
    expect "shards" "$(of_job "$shards" "shards-$1" '{.spec.completions} {.spec.parallelism}')" \
        "$2 $2"
}

# JOB RULE COUNT: in the logs of all pods each item was moved once, and every shard had some.
# shellcheck disable=SC2034 # the command of the README reads them
shards_took_each_once() {
    local moved job=$1 namespace=$shards
    moved=$(readme '^kubectl logs --prefix .*job-name=' | grep "event=moved rule=$2 ")
    expect "moved" "$(wc --lines <<<"$moved")" "$(orders | wc --lines)"
    expect "moved, each once" "$(grep --only-matching ' src=[^ ]*' <<<"$moved" | sort --unique |
        wc --lines)" "$(orders | wc --lines)"
    expect "shards that moved some" "$(grep --only-matching '^[^ ]*' <<<"$moved" | sort --unique |
        wc --lines)" "$3"
}

orders() {
    seq --format 'order %g' "$shards_first" "$shards_last"
}

# PREFIX: one object for each line of 'orders'.
fill_bucket() {
    # shellcheck disable=SC2016 # the shell in the pod is to see its own arguments
    beside_minio sh -c 'rm -rf /tmp/items && mkdir /tmp/items &&
        for n in $(seq "$1" "$2"); do echo "order $n" >"/tmp/items/$n.edi"; done &&
        mc --quiet --insecure cp --recursive /tmp/items/ "$0"' \
        "minio/$shards/$1/" "$shards_first" "$shards_last"
}

# DIRECTORY below inbound/
bots_has_orders() {
    expect "what Bots has in $1" "$(bots "$shards" "cat inbound/$1/*.edi")" "$(orders)"
}
