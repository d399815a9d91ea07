# shellcheck shell=bash
# What only NFS does: other clients whose changes a cache hides for a while, clocks that differ, a
# server that goes away, hangs, or does not know its files any more. Sourced by run.sh.
# What stands between single quotes is for the guest's shell.
# shellcheck disable=SC2154,SC2016

nfs_checks() {
    local call
    changes_of_another_client
    a_lock_file_in_mid_run
    clocks_that_differ
    waits_out_the_grace_period
    # Version 3 has a server of the same kind.
    if [[ $fs == nfs3 ]] && ! is_long; then return; fi
    server_in_mid_run "restarted" 'lab restart 1'
    server_in_mid_run "hung for 4 s" 'lab hang 4'
    if is_long; then
        server_in_mid_run "with its disk frozen for 4 s" 'lab hang 4 disk'
    fi
    # In: write, sync, rename. Out: list, ask for locks, read, remove.
    for call in $(is_long && echo "pwrite64 fsync") renameat; do
        at_step in "$call" "restarted" 'lab restart 8'
        at_step in "$call" "hung for 8 s" 'lab hang 8'
    done
    for call in $(is_long && echo "getdents64 fcntl read") unlinkat; do
        at_step out "$call" "restarted" 'lab restart 8'
        at_step out "$call" "hung for 8 s" 'lab hang 8'
    done
    for call in $(is_long && echo "fsync pwrite64") renameat; do
        stale_directory in "$call"
    done
    for call in $(is_long && echo "getdents64 read") unlinkat; do
        stale_directory out "$call"
    done
    # The last one: nothing is left of the volume.
    for call in $(is_long && echo "pwrite64 fsync") renameat; do a_volume_forgotten in "$call"; done
    for call in $(is_long && echo "read") unlinkat; do a_volume_forgotten out "$call"; done
}

# CLAIM CHANGE: this client has looked at the file a moment ago, then another one does something to
# it. In every case the new contents have to arrive.
another_client() {
    local number=$((++changes))
    does "d=change$number"'
        bots "mkdir /data/$d; echo old >/data/$d/po.edi"
        move /data/$d "s3://$bucket/$fs/$d" --dry-run >/dev/null
        bots "cat /data/$d/po.edi; stat /data/$d/po.edi" >/dev/null
        bots "cd $other/$d; '"$2"'"
        move /data/$d "s3://$bucket/$fs/$d"'
    is "a file that another client has just $1: exit code" "$status" 0
    is "what arrives of a file just $1" "$(s3 "$bucket/$fs/change$number/po.edi")" "$3"
    is "nothing else stays of a file just $1" "$(guest "sums \$back/change$number")" ""
}

changes_of_another_client() {
    local changes=0
    another_client "appended to" 'echo more >>po.edi' "old
more"
    another_client "replaced" 'echo new >.tmp; mv .tmp po.edi' new
    # Its server still knows the old file, by another name: no stale handle tells the client.
    another_client "replaced, its old self kept elsewhere" \
        'mkdir -p ../kept; ln po.edi ../kept/$$; echo new >.tmp; mv .tmp po.edi' new
    another_client "truncated and written anew" 'echo anew >po.edi' anew
    # In a directory below: another way to open it.
    does 'bots "mkdir -p /data/deep/sub; echo old >/data/deep/sub/po.edi"
        move /data/deep "s3://$bucket/$fs/deep" --recursive true --dry-run >/dev/null
        bots "cat /data/deep/sub/po.edi" >/dev/null
        bots "cd $other/deep; mkdir -p ../kept; mv sub ../kept/; mkdir sub; echo new >sub/po.edi"
        move /data/deep "s3://$bucket/$fs/deep" --recursive true'
    is "a directory that another client has just exchanged: the new file arrives" \
        "$(s3 "$bucket/$fs/deep/sub/po.edi")" new
    is "and the old one stays where it was taken to" "$(guest 'cat $back/kept/sub/po.edi')" old
    # A destination that was not there a moment ago.
    put_all "$work/policies/new" "$fs/taken"
    does 'bots "mkdir -p /data/taken/fail; cat /data/taken/fail/po.edi"
        bots "echo theirs >$other/taken/fail/po.edi"
        move "s3://$bucket/$fs/taken/fail" /data/taken/fail --if-exists fail'
    is "a name that another client has just taken is not written over by 'fail'" \
        "$(guest 'cat $back/taken/fail/po.edi')" theirs
    is "its item fails" "$status" 1
    is "and stays" "$(keys "$fs/taken/fail")" po.edi
    # While one file is removed, another one, listed already, is appended to.
    does 'bots "mkdir /data/while; echo old >/data/while/po.edi; echo z >/data/while/z.edi"
        at_call unlinkat 0 "bots \"echo more >>$other/while/z.edi\"" \
            move /data/while "s3://$bucket/$fs/while" --concurrency 1'
    is "appended to while another file is removed: it arrives whole" \
        "$(s3 "$bucket/$fs/while/z.edi"; guest 'cat $back/while/z.edi 2>/dev/null' || true)" "z
more"
}

# Bots sets to work while the rule is half done. Negative answers are cached, too: an NFS 3 client
# tells by the directory's time alone that they are old, and the server's clock goes by ticks of
# 4 ms. What is made in the same tick as a removal of ours is seen when the directory changes again,
# as it does while Bots is at work.
a_lock_file_in_mid_run() {
    does 'bots "mkdir /data/mid; cd /data/mid; for i in \$(seq 100 249); do echo \$i >po\$i.edi; done"
        as 1000 /tmp/bots-mover move /data/mid "s3://$bucket/$fs/mid" --concurrency 1 \
            --lock-file bots.lock >/tmp/run.log 2>&1 &
        until [ "$(grep -c event=moved /tmp/run.log)" -ge 3 ]; do sleep 0.05; done
        bots "touch $other/mid/bots.lock"; before=$(grep -c event=moved /tmp/run.log)
        for i in $(seq 1 10); do bots "touch $other/mid/.$i"; sleep 0.02; done
        wait $! || echo "exit $?"
        cat /tmp/run.log; echo "after the lock: $(($(grep -c event=moved /tmp/run.log) - before))"'
    has_part "a lock file made in mid-run by another client stops the rule" "$log" \
        "bots.lock exists in the source directory"
    [[ $fs != nfs3 ]] || return 0
    local after=${log##*after the lock: }
    is "it is seen within two items (what was in flight ends)" "$((after <= 2))" 1
}

# The server stamps files with its own clock.
clocks_that_differ() {
    does 'bots "mkdir /data/clock"
        with_clock_ahead -50 bots "echo behind >/data/clock/behind.edi"
        with_clock_ahead 50 bots "echo ahead >/data/clock/ahead.edi"
        move /data/clock "s3://$bucket/$fs/clock" --min-age-seconds 40'
    is "clocks that differ by 50 s, min_age_seconds 40: exit code" "$status" 0
    is "a server's clock ahead: the file waits, behind: it goes" "$(keys "$fs/clock")" behind.edi
    does 'bots "mkdir /data/far"; with_clock_ahead 7200 bots "echo far >/data/far/far.edi"
        move /data/far "s3://$bucket/$fs/far" --min-age-seconds 5'
    is "two hours ahead, with min_age_seconds: it stays" "$(keys "$fs/far")" ""
    does 'move /data/far "s3://$bucket/$fs/far"'
    is "two hours ahead, without: it goes as any other" "$(s3 "$bucket/$fs/far/far.edi")" far
    # A clock that is behind makes a file look old that is being written: it must not be cut.
    does 'append() { bots "exec >>$other/clock/slow.edi; echo >/tmp/writes; for i in \$(seq 1 40); do echo \$i; sleep 0.1; done"; }
        with_clock_ahead -30 bots "touch /data/clock/slow.edi"
        rm -f /tmp/writes; append & until [ -s /tmp/writes ]; do sleep 0.1; done; sleep 1
        move /data/clock "s3://$bucket/$fs/clock" --min-age-seconds 20; wait'
    is "a file that is written while its server's clock is behind: what went and what stays" \
        "$(s3 "$bucket/$fs/clock/slow.edi" 2>/dev/null || guest 'cat $back/clock/slow.edi')" \
        "$(seq 1 40)"
}

# WHAT ACTION: something happens to the server while files go both ways.
server_in_mid_run() {
    local wanted dir="mid-${2//[^a-z0-9]/-}"
    rm --recursive --force "$work/share/set"
    make_files "$work/share/set" 40
    wanted=$(sums_here "$work/share/set")
    put_all "$work/share/set" "$fs/$dir-in"
    guest "bots 'cp -r /share/set /data/$dir-out'"
    does "move 's3://$bucket/$fs/$dir-in' /data/$dir-in >/tmp/in.log 2>&1 & one=\$!
        move /data/$dir-out 's3://$bucket/$fs/$dir-out' --recursive true >/tmp/out.log 2>&1 & two=\$!
        until grep -q event=moved /tmp/in.log && grep -q event=moved /tmp/out.log; do sleep 0.05; done
        $2
        ! grep -q event=run_done /tmp/in.log || echo 'in: over before'
        wait \$one || echo \"in: exit \$?\"; wait \$two || echo \"out: exit \$?\"
        grep -v event=moved /tmp/in.log /tmp/out.log"
    is "a server $1 in mid-run: both runs end well" \
        "$(grep --count --extended-regexp '^(in|out): exit' <<<"$log" || true)" 0
    is "a server $1 in mid-run: what came in" "$(guest "sums /data/$dir-in")" "$wanted"
    is "a server $1 in mid-run: what went out" "$(object_sums "$fs/$dir-out")" "$wanted"
    is "a server $1 in mid-run: what stays at the sources" \
        "$(keys "$fs/$dir-in"; guest "sums /data/$dir-out")" ""
}

# DIRECTION SYSTEM-CALL WHAT ACTION: the same right at one call of a move of one file, which goes on
# while the server is away.
at_step() {
    local dir="step-$1-$2-${4//[^a-z0-9]/-}"
    one_file "$dir"
    if [[ $1 == in ]]; then
        does "at_call $2 1 '$4' move s3://$bucket/$fs/$dir /data/$dir"
    else
        does "bots 'cp -r /share/one /data/$dir'; only='/data/$dir /data/$dir/po.edi'
            at_call $2 1 '$4' move /data/$dir s3://$bucket/$fs/$dir-out"
    fi
    is "$1: a server $3 at $2: the program met it" "$(tail -n 1 <<<"$log")" reached
    has_part "$1: a server $3 at $2: exit code" "$log" "exit 0"
    arrived "$1" "$dir" "a server $3 at $2"
}

# DIRECTION SYSTEM-CALL: the directory is removed on the server and made anew with the same in it:
# every handle of the old one is stale.
stale_directory() {
    local dir="stale-$1-$2"
    one_file "$dir"
    if [[ $1 == in ]]; then
        does "bots 'mkdir /data/$dir'
            at_call $2 0 'rm -r /export/$dir; bots \"mkdir /export/$dir\"' \
                move s3://$bucket/$fs/$dir /data/$dir --retries 1 --wait-seconds 1"
    else
        does "bots 'cp -r /share/one /data/$dir'; only='/data/$dir /data/$dir/po.edi'
            at_call $2 0 'mv /export/$dir /export/$dir.old; bots \"cp -r /share/one /export/$dir\"
                rm -r /export/$dir.old' move /data/$dir s3://$bucket/$fs/$dir-out --retries 1 \
                --wait-seconds 1; move /data/$dir s3://$bucket/$fs/$dir-out"
    fi
    has_part "$1: handles stale at $2: the program met it" "$log" "
reached"
    has_part "$1: handles stale at $2: exit code" "$log" "exit 0"
    arrived "$1" "$dir" "handles stale at $2"
}

# DIRECTORY: an object and a file of this test's own.
one_file() {
    rm --recursive --force "$work/share/one"
    mkdir "$work/share/one"
    head --bytes 300000 /dev/urandom >"$work/share/one/po.edi"
    put_all "$work/share/one" "$fs/$1"
}

# DIRECTION DIRECTORY WHEN: the one file is at its destination only, and whole.
arrived() {
    local wanted
    wanted=$(sums_here "$work/share/one")
    if [[ $1 == in ]]; then
        is "in: $3: the file is there, whole" "$(guest "sums /data/$2")" "$wanted"
        is "in: $3: the object is gone" "$(keys "$fs/$2")" ""
    else
        is "out: $3: the object is there, whole" "$(object_sums "$fs/$2-out")" "$wanted"
        is "out: $3: the file is gone" "$(guest "sums /data/$2")" ""
    fi
}

# After a restart no lock can be asked for until the clients of before had their chance.
waits_out_the_grace_period() {
    one_file grace
    does 'bots "cp -r /share/one /data/grace"; lab restart 1; from=$(date +%s)
        move /data/grace "s3://$bucket/$fs/grace-out"; code=$?
        echo "waited $(($(date +%s) - from)) s"; exit $code'
    is "right after a restart: exit code" "$status" 0
    arrived out grace "right after a restart"
    printf '# %s: right after a restart a run %s' "$fs" "$(grep '^waited' <<<"$log")"
    printf ', and told of it in %d lines\n' "$(grep --count event=progress <<<"$log" || true)"
}

# DIRECTION SYSTEM-CALL: the export becomes another, empty one, as after a restore. What was on it
# is nobody's fault; what is not said to be moved must still be at MinIO.
a_volume_forgotten() {
    local dir="forgotten-$1-$2" wanted
    one_file "$dir"
    wanted=$(sums_here "$work/share/one")
    if [[ $1 == in ]]; then
        does "bots 'mkdir /data/$dir'
            at_call $2 0 'lab stale' move s3://$bucket/$fs/$dir /data/$dir"
        is "in: an export forgotten at $2: the object is still there, or the file is" \
            "$( (object_sums "$fs/$dir"; guest "sums /data/$dir") | sort --unique)" "$wanted"
    else
        does "bots 'cp -r /share/one /data/$dir'; only='/data/$dir /data/$dir/po.edi'
            at_call $2 0 'lab stale' move /data/$dir s3://$bucket/$fs/$dir-out"
        if [[ $2 == unlinkat ]]; then
            is "out: an export forgotten at $2: the object is there" \
                "$(object_sums "$fs/$dir-out")" "$wanted"
        fi
    fi
    is "$1: an export forgotten at $2: the program met it" "$(tail -n 1 <<<"$log")" reached
    if [[ $1 == in ]]; then
        is "in: an export forgotten at $2: what is said to be moved is there" \
            "$(grep --count event=moved <<<"$log" || true)" \
            "$(guest "sums /data/$dir" | grep --count . || true)"
    fi
    one_file "$dir-again"
    does "umount -f /data /data2; lab $fs; move s3://$bucket/$fs/$dir-again /data/$dir-again"
    is "$1: an export forgotten at $2: once it is mounted anew, a run brings all" \
        "$(guest "sums /data/$dir-again")" "$(sums_here "$work/share/one")"
}
