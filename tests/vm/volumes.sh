# shellcheck shell=bash
# What must hold on every volume: NFS 3 and 4.2, ext4, xfs, btrfs. Sourced by run.sh.
# What stands between single quotes is for the guest's shell.
# shellcheck disable=SC2154,SC2016

volume_checks() {
    answers
    both_directions
    four_policies
    # The others differ from ext4 in what a power cut leaves, not in what they answer.
    if [[ $fs == xfs || $fs == btrfs ]] && ! is_long; then return; fi
    connect_finds_all_in_order
    a_locked_file_waits
    a_lock_file_stops_the_rule
    umask_and_setgid
    a_directory_of_another_group
    a_full_volume
}

# What the volume knows; it/nfs.rs lets a filesystem in user space answer the same.
answers() {
    local rename="works"
    if [[ $fs == nfs* ]]; then rename="Invalid argument"; fi
    does 'as 1000 vmx features /data'
    is "answers: rename without replacing, links, locks, syncs" \
        "$(sed --quiet 's/ \{2,\}/: /; /NOREPLACE to\|^link\|GETLK: \|fsync/p' <<<"$log")" \
        "fsync of a file: works
fsync of a directory: works
fcntl F_GETLK: works
fcntl F_OFD_GETLK: works
link: works
renameat2 NOREPLACE to a new name: $rename"
}

both_directions() {
    local wanted
    rm --recursive --force "$work/share/set"
    make_files "$work/share/set" 24 9000000
    wanted=$(sums_here "$work/share/set")
    put_all "$work/share/set" "$fs/in"
    does 'move "s3://$bucket/$fs/in" /data/in --max-items 1000'
    is "25 objects come in: exit code" "$status" 0
    is "what came in is what there was, byte for byte" "$(guest 'sums /data/in')" "$wanted"
    is "what came in is gone from the bucket" "$(keys "$fs/in")" ""
    is "no part file is left" "$(guest 'hidden /data')" 0
    does 'move /data/in "s3://$bucket/$fs/out" --recursive true --max-items 1000'
    is "25 files go out: exit code" "$status" 0
    is "what went out is what there was, byte for byte" "$(object_sums "$fs/out")" "$wanted"
    is "what went out is gone from the directory" "$(guest 'sums /data/in')" ""
    does 'mover copy "s3://$bucket/$fs/out" /data/in && move /data/in /data/through \
        --recursive true --max-items 1000'
    is "from directory to directory: exit code" "$status" 0
    is "what went from directory to directory is whole" "$(guest 'sums /data/through')" "$wanted"
}

# In one run; each destination has another file of the name. Then once more where the destination
# has the very same.
four_policies() {
    local policy config="$work/share/policies" names
    printf 'config:\n  defaults: {exit_on_first_failure: false, base_file_path: /data/pol}\n' \
        >"$config"
    rm --recursive --force "$work/policies"
    for policy in overwrite fail keep_both skip; do
        mkdir --parents "$work/policies"/{old,new,same}"/$policy"
        echo "old $policy" >"$work/policies/old/$policy/po.edi"
        echo "new $policy" >"$work/policies/new/$policy/po.edi"
        echo "same $policy" >"$work/policies/same/$policy/same.edi"
        cat >>"$config" <<END
  in_$policy:
    src: {type: s3, bucket: $bucket, path: $fs/pol-in/$policy}
    dest: {type: file, path: in/$policy}
    if_exists: $policy
  out_$policy:
    src: {type: file, path: out/$policy}
    dest: {type: s3, bucket: $bucket, path: $fs/pol-out/$policy}
    if_exists: $policy
END
    done
    rm --recursive --force "$work/share/pol"
    mkdir "$work/share/pol"
    cp --recursive "$work/policies/old" "$work/share/pol/in"
    cp --recursive "$work/policies/new" "$work/share/pol/out"
    cp --recursive "$work/policies/same/." "$work/share/pol/in"
    cp --recursive "$work/policies/same/." "$work/share/pol/out"
    put_all "$work/policies/new" "$fs/pol-in"
    put_all "$work/policies/old" "$fs/pol-out"
    put_all "$work/policies/same" "$fs/pol-in"
    put_all "$work/policies/same" "$fs/pol-out"
    guest 'bots "cp -r /share/pol /data/pol"'
    does 'mover --config /share/policies'
    is "four policies both ways: the two of 'fail' fail the run" "$status" 1
    names='cd /data/pol; for f in $(find . -type f | sort); do echo "$f: $(cat $f)"; done'
    is "policies: the directories" "$(guest "bots '$names'")" "./in/fail/po.edi: old fail
./in/fail/same.edi: same fail
./in/keep_both/po-1.edi: new keep_both
./in/keep_both/po.edi: old keep_both
./in/keep_both/same.edi: same keep_both
./in/overwrite/po.edi: new overwrite
./in/overwrite/same.edi: same overwrite
./in/skip/po.edi: old skip
./in/skip/same.edi: same skip
./out/fail/po.edi: new fail
./out/skip/po.edi: new skip"
    object_sums "$fs/pol-out" >"$work/unused"
    is "policies: what went out" "$(cd "$work/objects" && grep --recursive . . | sort)" \
        "./fail/po.edi:old fail
./fail/same.edi:same fail
./keep_both/po-1.edi:new keep_both
./keep_both/po.edi:old keep_both
./keep_both/same.edi:same keep_both
./overwrite/po.edi:new overwrite
./overwrite/same.edi:same overwrite
./skip/po.edi:old skip
./skip/same.edi:same skip"
    is "policies: what stays in the bucket" "$(keys "$fs/pol-in")" "fail/po.edi
skip/po.edi"
}

connect_finds_all_in_order() {
    does 'mover check --connect --config /share/policies'
    is "check --connect: exit code" "$status" 0
    has_part "check --connect tried the directory" "$log" "made, synced, renamed and removed"
    is "check --connect leaves nothing" "$(guest 'hidden /data')" 0
}

# On NFS the writer is on the other mount: another client, as Bots' own host is.
a_locked_file_waits() {
    guest 'bots "mkdir /data/lock; echo one >/data/lock/po.edi; echo two >/data/lock/free.edi"'
    does 'while_locked lock/po.edi move /data/lock "s3://$bucket/$fs/lock"'
    is "a file with a record lock of another client is no failure" "$status" 0
    has_part "the log says why it stays" "$log" "has it locked: it is being written"
    is "the locked file stays, the other goes" "$(keys "$fs/lock")" "free.edi"
    # Bots' writer holds the lock and appends as it goes.
    does 'append() { bots "for i in 1 2 3 4 5 6; do echo \$i >>$other/lock/po.edi; sleep 0.2; done"; }
        rm -f /tmp/held; while_locked lock/po.edi append &
        until [ -s /tmp/held ]; do sleep 0.1; done
        move /data/lock "s3://$bucket/$fs/lock"; wait
        move /data/lock "s3://$bucket/$fs/lock"'
    is "after the writer has let go it goes whole" "$(s3 "$bucket/$fs/lock/po.edi")" \
        "$(printf '%s\n' one 1 2 3 4 5 6)"
    is "and is gone from the directory" "$(guest 'sums /data/lock')" ""
}

# The client has just been told that there is no such file, and may believe that for a while.
a_lock_file_stops_the_rule() {
    guest 'bots "mkdir /data/bots; echo one >/data/bots/po.edi"'
    does 'move /data/bots "s3://$bucket/$fs/bots" --lock-file bots.lock --dry-run
        bots "cat /data/bots/bots.lock"
        bots "touch $other/bots/bots.lock; echo two >>$other/bots/po.edi"
        move /data/bots "s3://$bucket/$fs/bots" --lock-file bots.lock'
    is "a lock file that another client has just made is no failure" "$status" 0
    has_part "the log names it" "$log" "bots.lock exists in the source directory"
    is "while it is there nothing moves" "$(keys "$fs/bots")" ""
    # A client may show for some time what is gone: no harm, the rule waits.
    does 'bots "rm $other/bots/bots.lock"; end=$(($(date +%s) + 90))
        until move /data/bots "s3://$bucket/$fs/bots" --lock-file bots.lock | grep event=moved; do
            [ $(date +%s) -lt $end ] || break; sleep 1; done'
    is "soon after it is gone, all moves, as it is now" "$(s3 "$bucket/$fs/bots/po.edi")" "one
two"
}

umask_and_setgid() {
    local modes='find . ! -name . -exec stat -c "%n %a %u:%g" {} + | sort'
    rm --recursive --force "$work/modes"
    mkdir --parents "$work/modes/new"
    echo one >"$work/modes/new/po.edi"
    put_all "$work/modes" "$fs/modes"
    guest 'mkdir $back/modes; chown 1000:2000 $back/modes; chmod 2775 $back/modes'
    does 'umask 027; move "s3://$bucket/$fs/modes" /data/modes'
    is "into a directory with the setgid bit, umask 027: exit code" "$status" 0
    is "its group is handed on, and the umask holds" "$(guest "cd \$back/modes; $modes")" \
        "./new 2750 1000:2000
./new/po.edi 640 1000:2000"
}

# A directory of group 2000 that others may not enter: as who is not in it, then as who is.
a_directory_of_another_group() {
    rm --recursive --force "$work/modes"
    mkdir --parents "$work/modes"
    echo one >"$work/modes/po.edi"
    put_all "$work/modes" "$fs/group"
    guest 'mkdir $back/group; chown 0:2000 $back/group; chmod 2770 $back/group'
    does 'move "s3://$bucket/$fs/group" /data/group'
    is "into a directory of a group that we are not in: exit code" "$status" 1
    has_part "the log names the directory" "$log" "/data/group"
    has_part "and says that we may not" "$log" "Permission denied"
    is "the object stays" "$(keys "$fs/group")" "po.edi"
    printf '%s\n' "config:" "  group:" "    src: {type: s3, bucket: $bucket, path: $fs/group}" \
        "    dest: {type: file, path: /data/group}" >"$work/share/group"
    does 'mover check --connect --config /share/group'
    is "check --connect finds it" "$status" 1
    has_part "and says whose it is" "$log" "uid 0 gid 2000 mode 2770"
    does 'umask 007; unshare --setgid 2000 --setuid 1000 \
        /tmp/bots-mover move "s3://$bucket/$fs/group" /data/group'
    is "as a member of the group it comes in" "$status" 0
    is "and belongs to the group" "$(guest 'cd $back/group; stat -c "%n %a %u:%g" *')" \
        "po.edi 660 1000:2000"
    if [[ $fs == nfs* ]]; then
        put_all "$work/modes" "$fs/root"
        guest 'bots "mkdir /data/root"'
        does '/tmp/bots-mover move "s3://$bucket/$fs/root" /data/root'
        is "root, whom the server squashes, may not write" "$status" 1
        has_part "and the log says so" "$log" "Permission denied"
        is "its object stays" "$(keys "$fs/root")" "po.edi"
    fi
}

# Room for some files, not for the large one.
a_full_volume() {
    local wanted
    rm --recursive --force "$work/share/set"
    make_files "$work/share/set" 8 24000000
    wanted=$(sums_here "$work/share/set")
    put_all "$work/share/set" "$fs/full"
    printf '%s\n' "config:" "  defaults: {exit_on_first_failure: false}" "  full:" \
        "    src: {type: s3, bucket: $bucket, path: $fs/full}" \
        "    dest: {type: file, path: /data/full}" >"$work/share/full"
    does 'room=$(df -k $back | tail -n 1 | awk "{print \$4}")
        fallocate -l $(((room - 8192) * 1024)) $back/filler; df -k $back
        mover --config /share/full'
    is "onto a volume without room for it: exit code" "$status" 1
    has_part "the log says what is short" "$log" "No space left on device"
    has_part "and where" "$log" "/data/full"
    is "the object stays" "$(keys "$fs/full")" "large.edi"
    is "nothing partial is there, the others are whole" "$(guest 'sums /data/full')" \
        "$(grep --invert-match large.edi <<<"$wanted")"
    is "and no part file" "$(guest 'hidden /data')" 0
    does 'rm $back/filler; move "s3://$bucket/$fs/full" /data/full'
    is "with room again it comes in" "$(guest 'sums /data/full')" "$wanted"
}
