#!/usr/bin/env bash
# The manifests on a real cluster, beside a real MinIO and a second pod on Bots' volume. Works on a
# copy of kube/ and runs the commands of kube/README.md as they stand there.
#
# './build.sh test' runs it where KUBECONFIG is set, './build.sh e2e' runs it alone. Variables:
#
#   KUBECONFIG          the cluster; its user may do everything there
#   E2E_LOAD            a command that brings an image archive into the cluster, such as
#                       'k3s ctr images import'. build.sh then builds and loads both images;
#                       without it they must be there already
#   E2E_IMAGE           the program's image; localhost/bots-mover of this version
#   E2E_TOOLS_IMAGE     busybox, MinIO and mc; localhost/bots-mover-e2e:1 (see Dockerfile)
#   E2E_STORAGE_CLASS   what makes ReadWriteMany volumes; without it
#   E2E_HOST_PATH       is a directory on the one node; /var/tmp/bots-mover-e2e
#   E2E_KEEP            not empty: leaves everything as it is at the end
#
# Makes the namespaces edi, edi-dev, edi-staging and minio, and refuses a cluster that has one of
# them. Empties them again. The node that runs one of the pods is cordoned for some seconds.
set -o errexit -o nounset -o pipefail -o errtrace
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tests/e2e/support.sh
source support.sh
# shellcheck source=tests/e2e/shards.sh
source shards.sh

readonly here=$PWD root=$PWD/../..
readonly environments=(edi-dev edi-staging edi)
readonly namespaces=("${environments[@]}" minio)
version=$(sed --quiet '0,/^version = "\(.*\)"/s//\1/p' "$root/Cargo.toml")
readonly shipped_image="localhost/bots-mover:$version"
readonly image="${E2E_IMAGE:-$shipped_image}"
readonly tools_image="${E2E_TOOLS_IMAGE:-localhost/bots-mover-e2e:1}"
readonly storage_class="${E2E_STORAGE_CLASS:-}"
readonly host_path="${E2E_HOST_PATH:-/var/tmp/bots-mover-e2e}"
readonly secret_key=e2e-secret-key-of-the-mover root_password=e2e-secret-key-of-root
# With so little CPU this takes longer than the 20 s that a stopped run has for what is in flight.
readonly large_in_mib=400 large_out_mib=250 slow_cpu=15m
work=$(mktemp --directory "${TMPDIR:-/tmp}/mover-e2e.XXXXXX")
readonly work
minio_pod=minio
# What kube/README.md begins with; 'enter' sets it.
environment="" namespace="" bucket=""
cordoned=""
doing="the beginning"
checks_done=0

main() {
    [[ -n "${KUBECONFIG:-}" ]] || { echo "e2e: KUBECONFIG is not set" >&2 && exit 2; }
    KUBECONFIG=$(realpath "$KUBECONFIG")
    export KUBECONFIG
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    exec 3>&1 >"$work/log" 2>&1
    cp --recursive "$root/kube" "$work"
    cd "$work"
    refuse_a_cluster_in_use
    use_images

    check "Bots' namespaces enforce Pod Security 'restricted'" make_environments
    check "MinIO has a bucket for each environment, and a user who may use no other" make_minio
    check "every overlay is applied, suspended, where 'restricted' is enforced" apply_overlays
    check "the check of each environment finds all in order and moves nothing" check_everywhere
    enter prod

    # What takes long in the cluster is begun here and looked at below.
    start_tick
    start_failing_jobs
    check "several pods share a run; one of them is deleted while it waits" start_shards
    check "the first file comes, and Bots sees it" first_file
    check "a Job from the CronJob moves both ways, now, twice, and is Complete" job_from_cronjob
    check "rules on standard input run once" rules_from_stdin
    check "the exit code of the run is that of the command" exit_code_comes_through
    check "one line copies from bucket to bucket" copy_between_buckets
    check "one line moves from a bucket to the volume" move_to_volume
    check "exit 2 fails the Job at once; describe tells where the config is wrong" exit_2
    check "a tick of the schedule moves both ways" tick_moves
    check "a Job runs rules of its own" job_with_rules
    check "a changed config comes under a new name" config_change
    check "exit 1 fails the Job after two more tries; describe tells what failed" exit_1
    check "the items of the deleted shard come with its next attempt" retried_shard
    check "a shard that fails three times fails the Job when the others are done" lost_shard
    check "1, 2 and 4 shards take each item once and leave none, both ways" shards_at_once
    check "exit 2 of shards fails the Job at once" exit_2_of_shards
    check "a CronJob per direction: each runs its own rules, here on a large file" start_large
    check "one pod is deleted, the other one drained from its node, in mid-transfer" interrupt
    check "only DNS and MinIO are to be reached, and nobody reaches the mover" network_policies
    check "MinIO's certificate is signed by a private CA" private_ca
    check "the Job of the deleted pod brings everything" deleted_pod
    check "the Job of the drained pod brings everything and counts no failure" drained_pod
    check "a tick does not overlap the run that is under way" no_overlap
    check "rolling back brings back the old rules under their old name" roll_back
    check "old ConfigMaps are tidied up, the one in use stays" tidy_up
    check "removing the mover leaves the claim and the Secret" remove_mover
    printf '%d checks passed in %d s\n' "$checks_done" "$SECONDS" >&3
}

# --- beginning and end ---

refuse_a_cluster_in_use() {
    local found mine
    found=$(kubectl get namespaces "${namespaces[@]}" --ignore-not-found --output name)
    mine=$(kubectl get namespaces --selector bots-mover-e2e --output name)
    if [[ "$(sort <<<"$found")" != "$(sort <<<"$mine")" ]]; then
        complain "the cluster has namespaces of these names already, not of this suite: $found"
    fi
    remove_all
}

# The images are all that differs from what a user has.
use_images() {
    local file
    while read -r file; do
        edit "$file" "$shipped_image" "$image"
    done < <(grep --recursive --files-with-matches --fixed-strings "$shipped_image" kube)
    for file in kube/overlays/*/kustomization.yaml; do
        edit "$file" 'newName: localhost/bots-mover' "newName: ${image%:*}"
        edit "$file" "newTag: $version" "newTag: ${image##*:}"
    done
}

clean_up() {
    local status=$?
    set +o errexit
    if ((status != 0)); then
        printf 'not ok %d %s\n' "$((checks_done + 1))" "$doing" >&3
        tell_all >&3 2>&1
    fi
    if [[ -n "$cordoned" ]]; then kubectl uncordon "$cordoned"; fi
    if [[ -n "${E2E_KEEP:-}" ]]; then
        echo "everything is left as it is; the log and the manifests are in $work" >&3
    else
        remove_all
        rm --recursive --force "$work"
    fi
    if ((status != 0)); then echo "e2e: failed after $SECONDS s: $doing" >&3; fi
    exit "$status"
}

tell_all() {
    local namespace pod
    # What the check that failed did.
    tac "$work/log" | sed '/^==== /q' | tac
    for namespace in "${environments[@]}"; do
        printf '\n==== %s\n' "$namespace"
        kubectl get cronjobs,jobs,pods,configmaps --namespace "$namespace" --output wide
        kubectl get events --namespace "$namespace" --sort-by .lastTimestamp | tail --lines 30
        kubectl describe jobs,pods --namespace "$namespace" \
            --selector app.kubernetes.io/name=bots-mover
        for pod in $(kubectl get pods --namespace "$namespace" --output name \
            --selector app.kubernetes.io/name=bots-mover); do
            printf '\n---- %s\n' "$pod"
            kubectl logs "$pod" --namespace "$namespace" --tail 50
        done
    done
}

# Only what bears the suite's label. The volumes' directories are emptied while MinIO sees them.
remove_all() {
    local namespace
    if [[ -n "$(kubectl get namespace minio --ignore-not-found --output name)" ]]; then
        for namespace in "${environments[@]}"; do
            kubectl delete cronjobs,jobs,pods --all --namespace "$namespace" --grace-period 1
            kubectl exec minio --namespace minio -- rm -rf "/volumes/$namespace" || true
        done
    fi
    kubectl delete namespaces --selector bots-mover-e2e --timeout 180s
    kubectl delete persistentvolumes --selector bots-mover-e2e
    kubectl delete pods --selector bots-mover-e2e --namespace kube-system
}

# --- what is there before the mover comes ---

# FILE [NAME=VALUE ...]: fills in what is in braces, and applies it.
apply() {
    local text pair
    text=$(<"$here/$1")
    for pair in "image=$tools_image" "host_path=$host_path" "storage_class=$storage_class" \
        "root_password=$root_password" "${@:2}"; do
        text=${text//"{${pair%%=*}}"/"${pair#*=}"}
    done
    kubectl apply --filename - <<<"$text"
}

make_environments() {
    local namespace refused
    kubectl create namespace minio
    kubectl label namespace minio bots-mover-e2e=true
    start_minio minio http
    for namespace in "${environments[@]}"; do
        if [[ -z "$storage_class" ]]; then
            kubectl exec minio --namespace minio -- sh -c "cd /volumes && rm -rf $namespace &&
                mkdir $namespace && chown 1000:1000 $namespace"
            apply volume.yaml "namespace=$namespace"
        fi
        apply environment.yaml "namespace=$namespace"
        refused=$(kubectl run careless --image "$image" --namespace "$namespace" 2>&1) &&
            complain "$namespace takes any pod"
        expect_parts "the refusal" "$refused" 'violates PodSecurity "restricted:latest"'
    done
    for namespace in "${environments[@]}"; do
        kubectl wait pod/bots --for condition=Ready --namespace "$namespace" --timeout 120s
        bots "$namespace" 'mkdir -p inbound/850 outbound/810'
    done
}

# POD SCHEME
start_minio() {
    local volumes="emptyDir: {}"
    if [[ "$1" == minio && -z "$storage_class" ]]; then
        volumes="hostPath: { path: $host_path, type: DirectoryOrCreate }"
    fi
    apply minio.yaml "name=$1" "scheme=$2" "volumes=$volumes"
    eventually 120 kubectl exec "$1" --namespace minio -- true
}

make_minio() {
    local each
    for each in dev staging prod; do
        enter "$each"
        fill_minio
        write_secret_file "http://$(address minio minio):9000"
        readme 'create secret generic .*from-env-file=minio.env$'
    done
    # As the user of the last one, in the bucket of the first one.
    mc alias set mover http://127.0.0.1:9000 "bots-mover-$bucket" "$secret_key"
    mc ls "mover/$bucket"
    if mc ls mover/edi-dev; then complain "production reads the bucket of development"; fi
}

# MinIO of the namespace and bucket that are entered. Only the secret key is asked for at a terminal.
fill_minio() {
    kubectl wait "pod/$minio_pod" --for condition=Ready --namespace minio --timeout 120s
    readme '^mc admin info'
    readme '^mc mb'
    readme '^sed .*minio-policy.json'
    set_policy
    mc admin user add minio "bots-mover-$bucket" "$secret_key"
    readme '^mc admin policy attach'
}

# From policy.json here, which mc looks for beside MinIO.
set_policy() {
    write_beside_minio "$(<policy.json)" policy.json
    readme '^mc admin policy create'
}

# ENDPOINT
write_secret_file() {
    printf '%s\n' "MINIO_ENDPOINT=$1" "MINIO_ACCESS_KEY=bots-mover-$bucket" \
        "MINIO_SECRET_KEY=$secret_key" >minio.env
}

# --- the mover ---

apply_overlays() {
    local each
    for each in dev staging prod; do
        enter "$each"
        readme '^printf .*suspend: true'
        readme 'apply --kustomize "kube/overlays/[$]environment"'
        expect "suspended" "$(kubectl get cronjob bots-mover --namespace "$namespace" \
            --output 'jsonpath={.spec.suspend}')" true
    done
}

check_everywhere() {
    local each job="" said
    for each in dev staging prod; do
        enter "$each"
        put "order" in/x12/850/check.edi
        readme '^kubectl get pods .*persistentVolumeClaim'
        readme '^job="bots-mover-check-'
        readme 'create job .*"check","--connect"'
        said=$(readme '^until kubectl logs')
        expect_parts "the check" "$said" "s3://$bucket/in/x12/850/" "  ok "
        if [[ "$said" == *FAIL* ]]; then complain "$said"; fi
        job_ends "$namespace" "$job" Complete
        bucket_has in/x12/850/check.edi "order"
        mc rm "minio/$bucket/in/x12/850/check.edi"
    done
}

start_tick() {
    local environment namespace bucket
    enter dev
    put "order" in/x12/850/tick.edi
    bots_writes edi-dev tick.edi "invoice"
    readme '^sed .*suspend: true'
    readme 'apply --kustomize "kube/overlays/[$]environment"'
    expect "suspended" "$(kubectl get cronjob bots-mover --namespace edi-dev \
        --output 'jsonpath={.spec.suspend}')" false
}

tick_moves() {
    local job
    eventually 130 bots edi-dev 'test -e inbound/850/tick.edi'
    job=$(kubectl get jobs --namespace edi-dev --sort-by .metadata.creationTimestamp --output name |
        grep --max-count 1 '/bots-mover-[0-9]*$')
    job=${job#*/}
    job_ends edi-dev "$job" Complete
    expect "its owner" "$(of_job edi-dev "$job" '{.metadata.ownerReferences[0].kind}')" CronJob
    job_says edi-dev "$job" 'event=run_done moved=2 copied=0 skipped=0 failed=0'
    bots_reads edi-dev tick.edi "order"
    bucket=edi-dev bucket_has out/x12/810/tick.edi "invoice"
    echo "$job" >tick
}

first_file() {
    local job="" said
    put "order 0" in/x12/850/po1.edi
    readme '^job="bots-mover-first-'
    readme 'create job "[$]job" --from=cronjob/bots-mover --namespace "[$]namespace"$'
    said=$(readme '^until kubectl logs')
    expect_parts "the log" "$said" "event=moved" "dest=/home/bots/.bots/inbound/850/po1.edi"
    job_ends edi "$job" Complete
    bots_reads edi po1.edi "order 0"
}

job_from_cronjob() {
    local job
    put "order 1" in/x12/850/po1.edi
    bots_writes edi 810_1.edi "invoice 1"
    readme 'create job "bots-mover-now-'
    sleep 1
    readme 'create job "bots-mover-now-'
    for job in $(kubectl get jobs --namespace edi --output name | grep bots-mover-now-); do
        job_ends edi "${job#*/}" Complete
    done
    bots_reads edi po1.edi "order 1"
    bucket_has out/x12/810/810_1.edi "invoice 1"
    bucket_lacks in/x12/850/po1.edi
    bots edi 'test ! -e outbound/810/810_1.edi'
}

# --- on demand ---

rules_from_stdin() {
    put "order 2" special/po2.edi
    cat >rules.yaml <<'EOF'
config:
  defaults: { base_file_path: /home/bots/.bots }
  special:
    src: { type: s3, path: special }
    dest: { type: file, path: inbound/850 }
EOF
    readme '-- --config - <rules.yaml'
    bots_reads edi po2.edi "order 2"
    bucket_lacks special/po2.edi
}

exit_code_comes_through() {
    local code=0
    echo "config: { r: { src: 1 } }" >rules.yaml
    readme '-- --config - <rules.yaml' || code=$?
    expect "the exit code for a wrong config" "$code" 2
    code=0
    cat >rules.yaml <<'EOF'
config:
  nowhere:
    src: { type: s3, bucket: nowhere, path: in }
    dest: { type: file, path: /home/bots/.bots/inbound/850 }
EOF
    readme '-- --config - <rules.yaml' || code=$?
    expect "the exit code for a failed rule" "$code" 1
}

# The policy as it comes names one bucket.
copy_between_buckets() {
    mc mb minio/archive
    sed 's|"arn:aws:s3:::edi\([^"]*\)"|&, "arn:aws:s3:::archive\1"|' kube/minio-policy.json \
        >policy.json
    set_policy
    readme '-- copy .* s3://archive/x12'
    expect "the copy" "$(mc cat minio/archive/x12/810/810_1.edi)" "invoice 1"
    bucket_has out/x12/810/810_1.edi "invoice 1"
}

move_to_volume() {
    put "order 3" in/x12/850/po3.edi
    readme '-- move .* inbound/850'
    bots_reads edi po3.edi "order 3"
    bucket_lacks in/x12/850/po3.edi
}

# The rules and the environment that job/ comes with.
job_with_rules() {
    local environment namespace bucket
    enter dev
    cp "$root"/kube/job/{config,kustomization}.yaml kube/job
    put "order of old" archive/x12/850/old.edi
    readme 'delete job bots-mover-once --namespace "[$]namespace"'
    readme 'apply --kustomize kube/job$'
    job_ends edi-dev bots-mover-once Complete
    bots_reads edi-dev old.edi "order of old"
    bucket_has archive/x12/850/old.edi "order of old"
}

# --- failures ---

start_failing_jobs() {
    bots edi 'mkdir -p inbound/closed && chmod 555 inbound/closed'
    put "order 4" closed/po4.edi
    start_job prod <<'EOF'
config:
  closed:
    src: { type: s3, bucket: edi, path: closed }
    dest: { type: file, path: /home/bots/.bots/inbound/closed }
EOF
    start_job staging <<'EOF'
config:
  defaults:
    retires: 2
  inbound_850:
    src: { type: s3, bucket: edi, path: in }
    dest: { type: file, path: /home/bots/.bots/inbound/850 }
EOF
}

# ENVIRONMENT, and the rules on standard input.
start_job() {
    cat >kube/job/config.yaml
    sed --in-place "s|- ../overlays/.*|- ../overlays/$1|" kube/job/kustomization.yaml
    readme 'apply --kustomize kube/job$'
}

exit_2() {
    job_ends edi-staging bots-mover-once Failed/PodFailurePolicy
    expect "failed pods" "$(of_job edi-staging bots-mover-once '{.status.failed}')" 1
    expect_parts "describe" "$(describe_pods edi-staging bots-mover-once)" \
        "Exit Code:    2" "Message:      /config/config.yaml:3:5: defaults.retires: unknown key" \
        "did you mean \`retries\`?"
}

exit_1() {
    job_ends edi bots-mover-once Failed/BackoffLimitExceeded
    expect "failed pods" "$(of_job edi bots-mover-once '{.status.failed}')" 3
    expect_parts "describe" "$(describe_pods edi bots-mover-once)" \
        "Exit Code:    1" "ERROR event=failed rule=closed src=s3://edi/closed/po4.edi" \
        "Permission denied" "ERROR event=run_done moved=0"
    bucket_has closed/po4.edi "order 4"
}

# NAMESPACE JOB
describe_pods() {
    kubectl describe pods --namespace "$1" --selector "batch.kubernetes.io/job-name=$2"
}

# --- changes ---

# The new rule never comes to an end, for 'no_overlap'.
config_change() {
    local before after
    before=$(config_map edi-dev)
    cp kube/overlays/dev/kustomization.yaml before.yaml
    cat >>kube/overlays/dev/kustomization.yaml <<'EOF'
configMapGenerator:
  - name: bots-mover
    behavior: replace
    files: [config.yaml]
EOF
    cat >kube/overlays/dev/config.yaml <<'EOF'
config:
  nowhere:
    src: { type: s3, bucket: nowhere, path: in }
    dest: { type: file, path: /home/bots/.bots/inbound/850 }
    retries: 100
    wait_seconds: 60
EOF
    kubectl apply --kustomize kube/overlays/dev
    after=$(config_map edi-dev)
    [[ "$after" != "$before" ]] || complain "the name is still $before"
    kubectl get configmap "$before" "$after" --namespace edi-dev
    expect "what the old Job names" "$(config_map_of_job edi-dev "$(<tick)")" "$before"
    echo "$before" >before
}

no_overlap() {
    local after runs
    after=$(config_map edi-dev)
    eventually 130 runs_with "$after"
    eventually 130 has_event edi-dev JobAlreadyActive
    runs=$(kubectl get cronjob bots-mover --namespace edi-dev \
        --output 'jsonpath={.status.active[*].name}')
    expect "runs under way" "$(wc --words <<<"$runs")" 1
    expect "their ConfigMap" "$(config_map_of_job edi-dev "$runs")" "$after"
}

# CONFIG-MAP: whether a run under way names it.
runs_with() {
    local job
    job=$(kubectl get cronjob bots-mover --namespace edi-dev \
        --output 'jsonpath={.status.active[0].name}')
    [[ -n "$job" && "$(config_map_of_job edi-dev "$job")" == "$1" ]]
}

# NAMESPACE REASON
has_event() {
    kubectl get events --namespace "$1" --field-selector "reason=$2" --output name | grep .
}

roll_back() {
    suspend edi-dev
    cp before.yaml kube/overlays/dev/kustomization.yaml
    kubectl apply --kustomize kube/overlays/dev
    expect "the ConfigMap" "$(config_map edi-dev)" "$(<before)"
    bucket=edi-dev put "order 5" in/x12/850/po5.edi
    kubectl create job bots-mover-back --from cronjob/bots-mover --namespace edi-dev
    job_ends edi-dev bots-mover-back Complete
    bots_reads edi-dev po5.edi "order 5"
}

# The rules of the Job that failed are a ConfigMap that nobody needs any more.
tidy_up() {
    # shellcheck disable=SC2034 # the commands of the README write and read 'current'
    local current all
    all=$(kubectl get configmaps --namespace edi --output name \
        --selector app.kubernetes.io/name=bots-mover)
    (($(wc --lines <<<"$all") > 1)) || complain "nothing to tidy up: $all"
    readme '^current='
    readme 'delete configmap .*current'
    expect "what is left" "$(kubectl get configmaps --namespace edi --output name \
        --selector app.kubernetes.io/name=bots-mover)" "configmap/$(config_map edi)"
}

remove_mover() {
    local left
    kubectl delete --kustomize kube/overlays/prod
    left=$(kubectl get cronjobs,configmaps,networkpolicies --namespace edi --output name \
        --selector app.kubernetes.io/name=bots-mover)
    expect "what is left" "$left" ""
    kubectl get persistentvolumeclaim/bots-edi-data-pvc secret/bots-mover pod/bots --namespace edi
}

# --- interruptions ---

# With little CPU, so that both can be caught in the act.
start_large() {
    edit kube/overlays/prod/resources_patch.yaml 'cpu: 50m' "cpu: $slow_cpu"
    edit kube/overlays/prod/resources_patch.yaml 'limits: {' "limits: { cpu: $slow_cpu,"
    printf 'components: [../../components/per-direction]\n' >>kube/overlays/prod/kustomization.yaml
    readme 'apply --kustomize "kube/overlays/[$]environment"'
    kubectl exec minio --namespace minio -- sh -c "cd /tmp &&
        head -c ${large_in_mib}m /dev/urandom >large && sha256sum <large &&
        mc --quiet cp large minio/edi/in/x12/850/large.edi >&2" >in.sum
    bots edi "cd outbound/810 && head -c ${large_out_mib}m /dev/urandom >large.edi &&
        touch -t 202001010000 large.edi && sha256sum <large.edi" >out.sum
    kubectl create job large-in --from cronjob/bots-mover --namespace edi
    kubectl create job large-out --from cronjob/bots-mover-outbound --namespace edi
    eventually 120 job_says edi large-in 'event=rule_start rule=inbound_850 selected=1'
    eventually 120 job_says edi large-out 'event=rule_start rule=outbound_810 selected=1'
    job_says edi large-in 'rules=1'
    job_says edi large-out 'rules=1'
}

interrupt() {
    local in out node logs drain
    in=$(pods_of edi large-in)
    out=$(pods_of edi large-out)
    kubectl logs "$in" --namespace edi --follow >in.log &
    kubectl delete pod "$in" --namespace edi --wait=false
    kubectl logs "$out" --namespace edi --follow >out.log &
    logs=$!
    node=$(kubectl get pod "$out" --namespace edi --output 'jsonpath={.spec.nodeName}')
    cordoned=$node
    kubectl drain "$node" --pod-selector batch.kubernetes.io/job-name=large-out \
        --delete-emptydir-data --timeout 120s &
    drain=$!
    eventually 60 is_disrupted edi "$out"
    wait "$drain"
    kubectl uncordon "$node"
    cordoned=""
    wait "$logs"
    eventually 60 grep 'event=run_done .*exit=143 signal=15' in.log
    eventually 60 grep 'event=run_done .*exit=143 signal=15' out.log
    cat in.log out.log
    # One of both is whole at any time; which, is a matter of speed.
    mc stat minio/edi/in/x12/850/large.edi || bots edi 'test -e inbound/850/large.edi'
    bots edi 'test -e outbound/810/large.edi' || mc stat minio/edi/out/x12/810/large.edi
}

# NAMESPACE POD
is_disrupted() {
    kubectl get pod "$2" --namespace "$1" --output \
        'jsonpath={.status.conditions[?(@.type=="DisruptionTarget")].reason}' |
        grep EvictionByEvictionAPI
}

deleted_pod() {
    job_ends edi large-in Complete
    expect "checksum" "$(bots edi 'sha256sum <inbound/850/large.edi')" "$(<in.sum)"
    bucket_lacks in/x12/850/large.edi
    expect "hidden files" "$(bots edi 'find inbound/850 -name ".*"')" ""
}

drained_pod() {
    job_ends edi large-out Complete
    expect "failed pods" "$(of_job edi large-out '{.status.failed}')" ""
    expect "checksum" "$(kubectl exec minio --namespace minio -- \
        sh -c 'mc cat minio/edi/out/x12/810/large.edi | sha256sum')" "$(<out.sum)"
    bots edi 'test ! -e outbound/810/large.edi'
}

# --- network ---

# A pod like the mover's, with another program in it. What it cannot reach, Bots' pod can.
network_policies() {
    local dns place host port from
    ensure_dns
    dns=$(kubectl get pods --namespace kube-system --selector k8s-app=kube-dns \
        --output 'jsonpath={.items[0].status.podIP}')
    kubectl run bots-mover-once --namespace edi-staging --image "$tools_image" --restart Never \
        --override-type strategic --overrides "$(<kube/run/buckets.json)" --command -- \
        httpd -f -p 8080
    kubectl wait pod/bots-mover-once --for condition=Ready --namespace edi-staging --timeout 60s
    for place in "$(address minio minio) 9000 open" "$dns 53 open" \
        "$(address minio minio) 9001 closed" "$(address edi-staging bots) 8080 closed"; do
        read -r host port from <<<"$place"
        expect "$host:$port from Bots" "$(reach edi-staging bots "$host" "$port")" open
        expect "$host:$port" "$(reach edi-staging bots-mover-once "$host" "$port")" "$from"
    done
    host=$(address edi-staging bots-mover-once)
    expect "the mover from Bots" "$(reach edi-staging bots "$host" 8080)" closed
    expect "the mover from itself" "$(reach edi-staging bots-mover-once 127.0.0.1 8080)" open
    kubectl delete pod bots-mover-once --namespace edi-staging --grace-period 1
}

# A cluster without DNS gets something that answers on its port.
ensure_dns() {
    if [[ -z "$(kubectl get pods --namespace kube-system --selector k8s-app=kube-dns \
        --output name)" ]]; then
        apply dns.yaml
        kubectl wait pod/bots-mover-e2e-dns --for condition=Ready --namespace kube-system \
            --timeout 60s
    fi
}

private_ca() {
    # shellcheck disable=SC2034 # the commands of the README read them
    local said environment namespace bucket
    enter staging
    start_minio minio-tls https
    make_certificate "$(address minio minio-tls)"
    minio_pod=minio-tls write_beside_minio "$(<public.crt)" /certs/public.crt
    minio_pod=minio-tls write_beside_minio "$(<private.key)" /certs/private.key
    minio_pod=minio-tls fill_minio
    minio_pod=minio-tls put "order 6" in/x12/850/po6.edi
    write_secret_file "https://$(address minio minio-tls):9000"
    kubectl create secret generic bots-mover --namespace edi-staging --from-env-file minio.env \
        --dry-run=client --output yaml | kubectl apply --filename -

    said=$(kubectl run bots-mover-once --namespace edi-staging --image "$image" --restart Never \
        --env "MINIO_BUCKET=$bucket" --rm --stdin --override-type strategic --overrides "$(<kube/run/volume.json)" -- \
        check --connect --config - <kube/base/config.yaml) && complain "a stranger was believed"
    expect_parts "check --connect" "$said" "TLS: "

    kubectl create configmap bots-mover-ca --namespace edi-staging --from-file ca.crt
    printf 'components: [../../components/private-ca]\n' >>kube/overlays/staging/kustomization.yaml
    readme 'apply --kustomize "kube/overlays/[$]environment"'
    kubectl create job bots-mover-tls --from cronjob/bots-mover --namespace edi-staging
    job_ends edi-staging bots-mover-tls Complete
    bots_reads edi-staging po6.edi "order 6"
}

# ADDRESS: ca.crt, and public.crt signed by it.
make_certificate() {
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    openssl req -x509 "${key[@]}" -days 2 -subj "/CN=CA of the tests" -keyout ca.key -out ca.crt
    openssl req "${key[@]}" -subj /CN=minio -keyout private.key -out minio.csr
    openssl x509 -req -in minio.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
        -extfile <(echo "subjectAltName = IP:$1") -out public.crt
}

main
