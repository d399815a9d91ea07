# shellcheck shell=bash
# './build.sh push': both images as one name in a registry, and what a release has beside them. Of
# build.sh it knows 'target_dir', 'target', 'version' and 'fail', and images.sh.

# Usage: push_images REGISTRY/NAME
# One name for both machines: a node takes the image that fits it. What is printed as the digest is
# what 'images: digest:' of a kustomization takes.
push_images() {
    [[ $# == 1 && "$1" == */* ]] || fail "push takes REGISTRY/NAME, such as registry.example/bots-mover"
    need manifest-builder
    build_images amd64 arm64
    push_archives "$1"
    describe_release
}

# Usage: push_archives REGISTRY/NAME. The archives are there. A digest is the registry's: what is
# pushed is compressed, so the archive's own would not do.
push_archives() (
    builder=$(manifest_builder)
    list="$image-all"
    digest=$(mktemp)
    trap 'rm --force "$digest"' EXIT
    options=()
    # Only a registry on this machine may speak plain HTTP.
    if [[ "$1" =~ ^(localhost|127\.0\.0\.1)[:/] ]]; then options=(--tls-verify=false); fi
    # shellcheck disable=SC2086 # the builder is a command and its first arguments
    {
        $builder manifest rm "$list" >/dev/null 2>&1 || true
        $builder manifest create "$list" >/dev/null
        for architecture in amd64 arm64; do
            id=$($builder pull --quiet "docker-archive:$(image_archive "$architecture")")
            $builder push --quiet "${options[@]}" --digestfile "$digest" "$id" \
                "docker://$1:$version-$architecture"
            echo "$architecture: $(<"$digest")"
            $builder manifest add "${options[@]}" "$list" "docker://$1@$(<"$digest")" >/dev/null
        done
        $builder manifest push --quiet --all "${options[@]}" --digestfile "$digest" "$list" \
            "docker://$1:$version"
        $builder manifest rm "$list" >/dev/null
    }
    echo "pushed: $1:$version"
    echo "digest: $(<"$digest")"
)

# What the program is made of, under which licence, what is new, and the checksums of all that is
# handed out.
describe_release() {
    local sbom="bots-mover-$version.cdx.json"
    need python3
    python3 .ci/sbom.py "$target" "$version" >"$target_dir/$sbom"
    install --mode 644 --target-directory "$target_dir" src/LICENSE src/CHANGELOG.md
    (cd "$target_dir" && sha256sum "bots-mover-$version"-*.tar "$sbom" LICENSE CHANGELOG.md |
        tee SHA256SUMS)
}

# A registry of our own, on a port that nobody listens on: the list there names both images, and the
# digests are those that were printed.
check_push() (
    local place
    need docker-registry manifest-builder curl python3
    work=$(mktemp --directory)
    registry=""
    trap 'kill $registry; rm --recursive --force "$work"' EXIT
    for _ in 1 2 3 4 5; do
        place="127.0.0.1:$((20000 + RANDOM % 12000))"
        start_registry "$place" "$work" && break
    done
    push_archives "$place/edi/bots-mover" | tee "$work/said"
    describe_release
    (cd "$target_dir" && sha256sum --check --quiet SHA256SUMS)
    python3 tests/image/pushed.py "$place" edi/bots-mover "$version" "$work/said" \
        "$(image_archive amd64)" "$(image_archive arm64)"
)

# Usage: start_registry HOST:PORT DIRECTORY; sets 'registry' to its process.
start_registry() {
    cat >"$2/registry.yml" <<TEXT
version: 0.1
storage: { filesystem: { rootdirectory: $2/registry } }
http: { addr: $1 }
TEXT
    docker-registry serve "$2/registry.yml" >"$2/registry.log" 2>&1 &
    registry=$!
    for ((tries = 0; tries < 100; tries++)); do
        kill -0 "$registry" 2>/dev/null || return 1
        if curl --silent --fail --output /dev/null "http://$1/v2/"; then return; fi
        sleep 0.1
    done
    cat "$2/registry.log" >&2
    return 1
}
