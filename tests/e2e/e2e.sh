# shellcheck shell=bash
# The end-to-end tests, and the images that they bring into the cluster. Of build.sh it knows
# 'fail', and the files of .ci/ and of tests/image/.

run_e2e() {
    need kubectl openssl
    if [[ -n "${E2E_LOAD:-}" ]]; then load_images; fi
    tests/e2e/run.sh
}

# The program's own and the suite's. E2E_LOAD is a command; tests/e2e/run.sh tells more.
load_images() (
    tools_image=localhost/bots-mover-e2e:1
    need minio mc busybox
    builder=$(image_builder) || fail "images need docker, podman or buildah"
    folder=$(mktemp --directory)
    trap 'rm --recursive --force "$folder"' EXIT
    fill_e2e_image "$folder/rootfs"
    # shellcheck disable=SC2086 # the builder is a command and its first arguments
    $builder build --file tests/e2e/Dockerfile --tag "$tools_image" "$folder"
    save_image "$builder" "$tools_image" "$folder/tools.tar"
    for archive in "$(image_archive "$(own_architecture)")" "$folder/tools.tar"; do
        # shellcheck disable=SC2086 # a command and its first arguments
        $E2E_LOAD "$(realpath "$archive")"
    done
)

# MinIO and mc with the libraries that they were linked to, and a busybox with all its names.
fill_e2e_image() {
    local tool
    mkdir --mode 755 "$1" "$1/bin"
    mkdir --mode 1777 "$1/tmp"
    for tool in $(busybox --list); do
        ln --symbolic busybox "$1/bin/$tool"
    done
    for tool in minio mc busybox; do
        cp --remove-destination "$(command -v "$tool")" "$1/bin"
        if ldd "$1/bin/$tool" >/dev/null 2>&1; then
            ldd "$1/bin/$tool" | grep --only-matching '/[^ ]*' |
                xargs cp --parents --dereference --target-directory "$1"
        fi
    done
}
