#!/usr/bin/env bash
# Stands in for the program: runs its image with the rights that kube/base gives it. The rules of
# '--config CONFIG' and the directory 'bots' beside them lie where the manifests mount them.
# Usage: bots-mover.sh ARGUMENT ..., with CONTAINER ('docker' or 'podman' with global options),
# RUN_OPTIONS (further ones for its 'run', or none) and IMAGE in the environment.
set -euo pipefail

readonly base_file_path=/home/bots/.bots
mounts=()
if [[ "$1" == --config ]]; then
    work=$(dirname "$2")
    # Where nobody could make user 1000 the owner of our files, as fsGroup does in a cluster.
    mkdir --parents "$work/bots/inbound/850" "$work/bots/inbound/orders"
    chmod --recursive a+rwX "$work/bots"
    sed "s|$work/bots|$base_file_path|" "$2" >"$work/mounted.yaml"
    chmod a+r "$work/mounted.yaml"
    mounts+=(--volume "$work/mounted.yaml:/config/config.yaml:ro")
    mounts+=(--volume "$work/bots:$base_file_path")
    shift 2
fi

# shellcheck disable=SC2086 # a command and options
exec $CONTAINER run $RUN_OPTIONS --rm --pull never --network host --read-only --cap-drop all \
    --security-opt no-new-privileges --user 1000:1000 --tmpfs /tmp \
    --env BOTS_MOVER_UMASK=0002 --env TZ=UTC \
    --env MINIO_ENDPOINT --env MINIO_ACCESS_KEY --env MINIO_SECRET_KEY \
    "${mounts[@]}" "$IMAGE" "$@"
