# shellcheck shell=bash
# What every command in the guest begins with. The caller has set 'fs' and 'bucket'. Variables of
# the program come from 'settings', which the host writes.
# shellcheck disable=SC2154,SC2034
# shellcheck source=/dev/null
source /share/settings
case "$fs" in
    # 'back' is the volume as its server sees it, 'other' as a second client does.
    nfs*) back=/export other=/data2 ;;
    *) back=/data other=/data ;;
esac

# The program as a pod runs it: user 1000, no other groups.
mover() {
    if [ -n "$VM_BREAK" ]; then
        strace -f -qq -o /dev/null -e "inject=$VM_BREAK" vmx as 1000 /tmp/bots-mover "$@"
    else
        as 1000 /tmp/bots-mover "$@"
    fi
}

# SOURCE DESTINATION [OPTION ...]
move() {
    mover move "$1" "$2" --retries 2 --wait-seconds 1 "${@:3}"
}

# COMMAND: as the pod's user; root has no rights on a server that squashes it.
bots() {
    as 1000 sh -c "umask 022; $1"
}

# Two mounts of one machine are one client to a server of NFS 4, which then takes no delegation
# back: the one mount would go on believing what the other has changed. So /data2 is mounted from a
# network namespace and under a host name of its own, as another machine would be.
second_client() {
    local pid
    umount /data2
    if [ ! -s /run/client.pid ]; then
        unshare --net --uts sh -c 'echo $$ >/run/client.new; exec sleep 1000000000' \
            </dev/null >/dev/null 2>&1 &
        until [ -s /run/client.new ]; do sleep 0.1; done
        pid=$(cat /run/client.new)
        ip link add client1 type veth peer name server1
        ip link set server1 netns "$(cat /run/server.pid)"
        ip link set client1 netns "$pid"
        lab server sh -c 'ip addr add 10.9.1.1/24 dev server1; ip link set server1 up'
        nsenter --net --uts -t "$pid" sh -ec 'hostname client2; ip link set lo up
            ip addr add 10.9.1.2/24 dev client1; ip link set client1 up'
        mv /run/client.new /run/client.pid
    fi
    nsenter --net --uts -t "$(cat /run/client.pid)" mount.nfs \
        -o "vers=${fs#nfs},hard,proto=tcp,nosharecache" 10.9.1.1:/export /data2
}

# DIRECTORY: the checksum and name of each file that a reader sees, sorted by name.
sums() {
    bots "cd '$1' 2>/dev/null && find . -type f ! -name '.*' -exec sha256sum {} +" |
        sed 's#  \./#  #' | sort -k 2
}

# DIRECTORY: hidden files below it, which must not be left.
hidden() {
    bots "find '$1' -name '.*' -type f 2>/dev/null" | grep -vc '/\.nfs' || true
}

# SYSTEM-CALL SECONDS ACTION PROGRAM-ARGUMENT ...: does something while the program stands before
# its first such call, or, where 'only' lists paths, the first one on one of them. After so many
# seconds the program goes on beside the action; where that is 0, once the action is done. Prints
# the log, the exit code, and then 'reached', 'missed' where there was no such call, or 'late' where
# the action was over before the program went on beside it.
at_call() {
    local seconds=$2 action=$3 call number mover tracer acting path filter=() place=missed status=0
    case $1 in
        read) call=read number=0 ;;
        pwrite64) call=pwrite64 number=18 ;;
        fcntl) call=fcntl number=72 ;;
        fsync) call=fsync number=74 ;;
        getdents64) call=getdents64 number=217 ;;
        unlinkat) call=unlinkat number=263 ;;
        renameat) call=/^renameat number='(264|316)' ;;
        *) echo "at_call knows no $1" && return 1 ;;
    esac
    for path in ${only:-}; do filter+=(-P "$path"); done
    # Whom strace has started itself would be killed with it.
    sh -c 'kill -STOP $$; exec vmx as 1000 /tmp/bots-mover "$@"' sh "${@:4}" >/tmp/run.log 2>&1 &
    mover=$!
    until grep -q '^State:.*T' /proc/$mover/status; do sleep 0.05; done
    strace -f -qq -o /tmp/calls "${filter[@]}" -e "trace=$call" \
        -e "inject=$call:delay_enter=600000000:when=1" -p $mover &
    tracer=$!
    until grep -q '^TracerPid:.*[1-9]' /proc/$mover/status; do sleep 0.05; done
    kill -CONT $mover
    until stands_at "$number"; do
        kill -0 $mover 2>/dev/null || break
    done
    if kill -0 $mover 2>/dev/null; then
        place=reached
        eval "$action" >/tmp/action.log 2>&1 &
        acting=$!
        if [ "$seconds" = 0 ]; then wait $acting || true; else sleep "$seconds"; fi
        stands_at "$number" || place=missed
        [ "$seconds" = 0 ] || kill -0 $acting 2>/dev/null || place=late
        # strace lets go of the program.
        kill -TERM $tracer
        wait $acting || true
    fi
    wait $mover || status=$?
    wait $tracer 2>/dev/null || true
    cat /tmp/run.log /tmp/action.log 2>/dev/null
    echo "exit $status"
    echo "$place"
}

# NUMBER: whether a thread of the program has been in this system call for a moment.
stands_at() {
    local at="^$1 " threads
    threads="/proc/$(pidof bots-mover | cut -d ' ' -f 1)/task/[0-9]*/syscall"
    # shellcheck disable=SC2086 # a pattern of paths
    cat $threads 2>/dev/null | grep -qE "$at" && sleep 0.2 &&
        cat $threads 2>/dev/null | grep -qE "$at"
}

# FILE COMMAND ...: the command while somebody has an exclusive record lock on the file, taken as
# another client.
while_locked() {
    local holder
    rm -f /tmp/held
    as 1000 vmx hold "$other/$1" 300 >/tmp/held &
    holder=$!
    until [ -s /tmp/held ]; do
        kill -0 $holder || return 1
        sleep 0.1
    done
    "${@:2}"
    kill $holder
    wait $holder 2>/dev/null || true
}

# SECONDS COMMAND ...: the command at a time of day that is so much later; a server stamps files
# with its own.
with_clock_ahead() {
    date -s "@$(($(date +%s) + $1))" >/dev/null
    "${@:2}"
    date -s "@$(($(date +%s) - $1))" >/dev/null
}
