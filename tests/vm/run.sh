#!/usr/bin/env bash
# The program on real volumes in a virtual machine: Linux's own NFS server and client (3 and 4.2),
# ext4, xfs and btrfs, on a disk whose plug can be pulled.
#
# Usage: run.sh BOTS_MOVER MINIO [quick|long] [PART ...]
#
# quick (the default) is for every test run, long takes some hours. The parts: nfs4.2, nfs3, ext4,
# xfs, btrfs, pod, power; all of them where none is named. One line 'ok' or 'not ok' for each check,
# 'tried' lines for the power cuts, then 'N passed, M failed'. Exit code 0 or 1; 77 where there is
# no machine, and nothing was run.
#
# VM_TOOL is the program that makes the machine. It is called as 'VM_TOOL up -n NAME [-d raw|volatile]
# [-s DIRECTORY] [-p VOLUME]', and with 'exec -n NAME [-t SECONDS] COMMAND', 'cut', 'down', 'purge'.
# In the guest it has the commands 'lab', 'vmx' and 'as'. VM_BREAK shows that the checks can fail:
# what strace injects into the program, such as 'fsync:retval=0' or 'fcntl:error=ENOLCK'.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ ! -x "${VM_TOOL:-}" ]]; then
    echo "vm: not run: no virtual machine (VM_TOOL names none)"
    exit 77
fi
binary=$(realpath "$1") minio=$(realpath "$2") length=${3:-quick}
VM_TOOL=$(realpath "$VM_TOOL")
parts=("${@:4}")
cd "$here"
# shellcheck source=tests/vm/support.sh
source support.sh
# shellcheck source=tests/vm/volumes.sh
source volumes.sh
# shellcheck source=tests/vm/nfs.sh
source nfs.sh
# shellcheck source=tests/vm/pod.sh
source pod.sh
# shellcheck source=tests/vm/power.sh
source power.sh

readonly bucket=mover-vm machine_name=mover-$$
export VM_MIB=1024
minio_port="" minio_pid="" status=0 finished=""
work=$(mktemp --directory "${TMPDIR:-/tmp}/mover-vm.XXXXXX")
readonly work

main() {
    local part
    [[ "$length" == quick || "$length" == long ]] || {
        echo "vm: '$length' is neither quick nor long" >&2
        exit 2
    }
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if ((${#parts[@]} == 0)); then parts=(nfs4.2 nfs3 ext4 xfs btrfs pod power); fi
    "$VM_TOOL" build
    start_minio
    fill_share
    for part in "${parts[@]}"; do
        printf '# %s (%d s)\n' "$part" "$SECONDS"
        case "$part" in
            nfs* | ext4 | xfs | btrfs) on "$part" ;;
            pod) in_a_pod ;;
            power) power_cuts ;;
            *) echo "vm: no part '$part'" >&2 && exit 2 ;;
        esac
    done
    finished=yes
    printf '%d passed, %d failed (%s, %d s)\n' "$passed" "$failed" "$length" "$SECONDS"
    ((failed == 0))
}

# VOLUME: one machine serves them all, one after the other; a server is only made once, though.
on() {
    local old=$fs
    fs=$1
    case "$old-$fs" in
        nfs*-nfs*) guest "umount /data2 /data; rm -rf /export/*; lab $fs" ;;
        -* | *-nfs*)
            machine purge
            machine up -d raw -s "$work/share"
            prepare_guest
            guest "lab $fs"
            ;;
        *) guest "lab off; wipefs -qa /dev/vda; lab $fs" ;;
    esac
    if [[ "$fs" == nfs4* ]]; then guest second_client; fi
    volume_checks
    if [[ "$fs" == nfs* ]]; then nfs_checks; fi
}

main
