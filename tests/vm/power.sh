# shellcheck shell=bash
# The plug is pulled in the middle of a move. What the guest had written and not flushed is lost.
# Sourced by run.sh. VM_CUTS: how many cuts on each kind of volume in the long version (20).
# shellcheck disable=SC2154,SC2016,SC2034

readonly files_per_cut=200

power_cuts() {
    local kind
    if is_long; then
        for kind in ext4 xfs btrfs nfs4.2; do
            cuts "$kind" volatile "${VM_CUTS:-20}" 0
            cuts "$kind" raw "${VM_CUTS:-20}" 1
        done
    else
        cuts ext4 volatile 1 0
        cuts xfs volatile 1 1
        cuts btrfs volatile 1 0
    fi
}

# VOLUME DISK CUTS FIRST: every other cut meets a move out of the directory. One that did not come
# in mid-run, because the host was busy, is looked at as well, and made once more.
cuts() {
    local disk=$2 round missed=0 fired=0 lost=0 altered=0 twice=0 bitten=0 unfinished=0
    machine purge
    fs=$1
    machine up -d "$disk" -s "$work/share"
    prepare_guest
    guest "lab $fs"
    for ((round = $4 + 1; fired < $3 && missed <= $3; round++)); do
        if (((fired + $4) % 2)); then one_cut out; else one_cut in; fi
    done
    printf 'tried power-vm/%s-%s %d fired %d lost %d altered %d duplicates %d\n' \
        "$fs" "$disk" "$((fired + missed))" "$fired" "$lost" "$altered" "$twice"
    log="cuts: $fired in mid-run, $missed not"
    is "$disk disk: cuts that came in mid-run" "$fired" "$3"
    is "$disk disk: lost, altered, not finished by a further run" "$lost $altered $unfinished" "0 0 0"
    is "$disk disk: a writer that does not sync loses files, so the cuts are real" \
        "$((bitten > 0))" 1
}

# DIRECTION
one_cut() {
    local dir="cut-$disk-$1-$round" from to control mover goal pause files=$files_per_cut
    local l a t u said c whole
    rm --recursive --force "$work/share/set"
    make_files "$work/share/set" "$((files - 1))" 3000000
    sums_here "$work/share/set" >"$work/wanted"
    if [[ $1 == in ]]; then
        from="s3://$bucket/$fs/$dir" to="/data/$dir"
        put_all "$work/share/set" "$fs/$dir"
    else
        from="/data/$dir" to="s3://$bucket/$fs/$dir"
        guest "bots 'cp -r /share/set /data/$dir'; sync"
    fi
    guest "mkdir -p \$back/control; echo 'i=0; while :; do i=\$((i + 1));
        head -c 3000 /dev/zero | tr \"\\000\" x >$([[ $fs == nfs* ]] && echo /export || echo /data
        )/control/\$i; echo \$i; sleep 0.1; done' >/tmp/control; sync"
    guest "sh /tmp/control" >"$work/control" 2>/dev/null &
    control=$!
    until [[ -s "$work/control" ]] || ! kill -0 $control 2>/dev/null; do sleep 0.05; done
    guest "mover move $from $to --recursive true --max-items 1000" >"$work/log" 2>&1 &
    mover=$!
    goal=$((RANDOM % (files * 4 / 5) + 1))
    until (($(grep --count event=moved "$work/log") >= goal)) || ! kill -0 $mover 2>/dev/null; do
        sleep 0.02
    done
    pause=$((RANDOM % 100))
    sleep "0.$(printf '%03d' $pause)"
    machine cut
    wait $control $mover || true
    if grep --quiet event=moved "$work/log" && ! grep --quiet event=run_done "$work/log"; then
        fired=$((fired + 1))
    else
        missed=$((missed + 1))
    fi

    machine up -s "$work/share" 2>"$work/up" || { cat "$work/up" && exit 1; }
    prepare_guest
    guest "lab $fs"
    guest "sums /data/$dir" >"$work/there"
    object_sums "$fs/$dir" >"$work/objects.sums"
    sort --unique "$work/there" "$work/objects.sums" >"$work/either"
    l=$(comm -23 <(sort "$work/wanted") "$work/either" | wc --lines)
    a=$(comm -13 <(sort "$work/wanted") "$work/either" | wc --lines)
    t=$(comm -12 <(sort "$work/there") <(sort "$work/objects.sums") | wc --lines)
    # What the log said was moved must be at the destination.
    said=$(sed --quiet "s#.*event=moved .* dest=$to/\([^ ]*\) .*#\1#p" "$work/log" | sort |
        comm -23 - <(sed 's/^[^ ]*  //' "$work/$([[ $1 == in ]] && echo there || echo objects.sums)" |
            sort) | wc --lines)
    c=$(wc --lines <"$work/control")
    whole=$(guest "find \$back/control -type f -size 3000c | wc -l; rm -rf \$back/control")
    bitten=$((bitten + (c > whole ? c - whole : 0)))

    does "mover move $from $to --recursive true --max-items 1000"
    u=$status
    if [[ $1 == in ]]; then
        [[ "$(guest "sums /data/$dir")" == "$(<"$work/wanted")" && -z "$(keys "$fs/$dir")" ]] || u=1
    else
        [[ "$(object_sums "$fs/$dir")" == "$(<"$work/wanted")" &&
            -z "$(guest "sums /data/$dir")" ]] || u=1
    fi
    printf '# %s %s %s: cut after %d of %d moved, lost %d, altered %d, twice %d, %s; %s\n' \
        "$fs" "$disk" "$1" "$(grep --count event=moved "$work/log" || true)" "$files" $((l + said)) "$a" \
        "$t" "next run $([[ $u == 0 ]] && echo "finishes" || echo "DOES NOT FINISH")" \
        "unsynced control files lost $((c - whole)) of $c"
    if ((l + said + a + u)); then
        printf '%s\n' "$log" | tail -n 20 | sed 's/^/  | /'
        comm -3 <(sort "$work/wanted") "$work/either" | sed --quiet '1,20s/^/  # /p'
    fi
    : $((lost += l + said)) $((altered += a)) $((twice += t)) $((unfinished += u > 0))
    guest "rm -rf \$back/$dir" || true
}
