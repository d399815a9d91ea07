# shellcheck shell=bash
# What a pod has: a memory limit of 64 MiB, which counts the dirty pages of what it writes, and an
# NFS server that takes its time. Sourced by run.sh. VM_POD_MIB: how much goes each way.
# shellcheck disable=SC2154,SC2016,SC2034

# What the program may hold: 16 MiB of its own, 24 that are not written yet, 13 in connections, and
# what the kernel takes for threads and tables.
readonly pod_limit_mib=64 held_mib=56 server_mib_per_s=8

in_a_pod() {
    local mib=${VM_POD_MIB:-$(is_long && echo 1024 || echo 200)} at wanted
    machine purge
    fs=nfs4.2
    machine up -d raw -s "$work/share"
    prepare_guest
    guest "lab $fs; mkdir -p /export/staging; chown 1000 /export/staging"
    # The server's threads get a group with a limit of bytes a second to the disk.
    does 'mkdir -p /tmp/groups; mount -t cgroup2 groups /tmp/groups; cd /tmp/groups
        echo "+memory +io" >cgroup.subtree_control && mkdir pod server &&
        echo '"$((pod_limit_mib << 20))"' >pod/memory.max
        echo "$(cat /sys/block/vda/dev) wbps='"$((server_mib_per_s << 20))"' rbps='"$((server_mib_per_s << 20))"'" \
            >server/io.max
        for p in $(ps -o pid,comm | awk "\$2 ~ /^.?nfsd.?\$/ {print \$1}"); do
            echo $p >server/cgroup.procs; done
        wc -l <server/cgroup.procs; cat pod/memory.max server/io.max'
    is "8 threads of the server are in the slow group" "$(head -n 1 <<<"$log")" 8
    # The proof that it is slow: without it the check would say little.
    does 'centiseconds() { cut -d " " -f 1 /proc/uptime | tr -d .; }; from=$(centiseconds)
        bots "dd if=/dev/zero of=/data/slow bs=1M count=48 conv=fsync" 2>&1
        echo "rate $((4800 / ($(centiseconds) - from)))"; rm /export/slow'
    printf '# %s: the server takes %s MiB/s\n' "$fs" "$(sed --quiet 's/^rate //p' <<<"$log")"
    is "the server takes at most $((server_mib_per_s + 2)) MiB a second" \
        "$(awk -v most=$((server_mib_per_s + 2)) '/^rate/ {print $2 <= most}' <<<"$log")" 1

    rm --recursive --force "$work/share/set"
    mkdir "$work/pod"
    head --bytes $((mib << 19)) /dev/urandom >"$work/pod/large.edi"
    for ((at = 0; at < 16; at++)); do
        head --bytes $((mib << 15)) /dev/urandom >"$work/pod/po$at.edi"
    done
    wanted=$(sums_here "$work/pod")
    put_all "$work/pod" "$fs/pod"
    rm --recursive --force "$work/pod"

    limit=3600
    confined 'move s3://$bucket/$fs/pod /data/pod'
    figures "$mib MiB in"
    is "$mib MiB come in whole" "$(guest 'sums /data/pod')" "$wanted"
    confined 'move /data/pod s3://$bucket/$fs/pod-out'
    figures "$mib MiB out"
    is "$mib MiB go out whole" "$(object_sums "$fs/pod-out")" "$wanted"
    limit=300
}

# MOVER-ARGUMENTS: in the pod's group, with a TMPDIR on a disk, as an emptyDir is. What the group
# holds that the kernel cannot drop at once is looked at 5 times a second.
confined() {
    does 'cd /tmp/groups; rmdir pod; mkdir pod; echo '"$((pod_limit_mib << 20))"' >pod/memory.max
        dmesg -c >/dev/null
        (while sleep 0.2; do awk "{of[\$1] = int(\$2 / 1024)}
            END {unwritten = of[\"file_dirty\"] + of[\"file_writeback\"]
                print unwritten + of[\"anon\"] + of[\"sock\"] + of[\"kernel\"], unwritten, of[\"anon\"],
                    of[\"sock\"], of[\"kernel\"], of[\"file\"] - unwritten}" pod/memory.stat
            done >/tmp/samples) & sampler=$!
        code=0; from=$(date +%s)
        TMPDIR=/export/staging sh -c "echo \$\$ >/tmp/groups/pod/cgroup.procs
            exec as 1000 /tmp/bots-mover '"$1"'" || code=$?
        kill $sampler
        echo "unwritten $(sort -n -k 2 /tmp/samples | tail -n 1 | cut -d " " -f 2) KiB at most"
        sort -n /tmp/samples | tail -n 1 | awk "{printf \"held %d KiB at most: \
unwritten %d, anon %d, sock %d, kernel %d, and clean %d\\n\", \$1, \$2, \$3, \$4, \$5, \$6}"
        echo "seconds $(($(date +%s) - from))"
        echo "peak $(($(cat pod/memory.peak) >> 10)) KiB"
        echo "kills $(sed -n "s/^oom_kill //p" pod/memory.events)"
        echo "limit-met $(sed -n "s/^max //p" pod/memory.events)"
        dmesg | grep -E "memory: usage|Killed process|\] (anon|kernel|sock|file(_dirty|_writeback)?) "
        exit $code'
}

# WHAT
figures() {
    printf '# %s: %s, in a memory cgroup of %d MiB: %s\n' "$fs" "$1" "$pod_limit_mib" \
        "$(grep --extended-regexp '^(seconds|peak|unwritten|held|kills|limit-met) ' <<<"$log" | paste -s -d ' ')"
    is "$1 in $pod_limit_mib MiB of memory: exit code" "$status" 0
    is "$1: no process is killed for memory" "$(sed --quiet 's/^kills //p' <<<"$log")" 0
    is "$1: at most $held_mib MiB are held that cannot be dropped at once" \
        "$(awk -v most=$((held_mib << 10)) '/^held/ {print ($2 > 0 && $2 <= most)}' <<<"$log")" 1
}
