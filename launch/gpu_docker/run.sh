#!/usr/bin/env bash
# Builds the image and trains in it on all GPUs of this machine.
#
#   launch/gpu_docker/run.sh [--image IMAGE] [--mount DIR]… [--dry-run] --config FILE[:RECIPE] [flags of jepa_jax.train]
#
#   --image IMAGE  name of the image; default jepa_jax
#   --mount DIR    a folder of this machine to mount at the same path, for data or the workdir
#   --dry-run      prints the commands without running them
#
# Ctrl-C or `docker stop` makes training save a checkpoint. Run the same command again to resume.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

usage() {
  sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "$0"
  exit "$1"
}

fail() {
  echo "run.sh: $*" >&2
  exit 2
}

image=jepa_jax dry_run=''
mounts=() train=()
while [ $# -gt 0 ]; do
  case "$1" in
    --image | --mount)
      [ -n "${2:-}" ] || fail "$1 needs a value"
      if [ "$1" = --image ]; then
        image=$2
      else
        [[ $2 == /* ]] || fail "--mount is '$2'; expected a path that starts with /"
        mounts+=("--volume=$2:$2")
      fi
      shift
      ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage 0 ;;
    *) train+=("$1") ;;
  esac
  shift
done
[[ " ${train[*]+"${train[*]}"} " == *" --config"[\ =]* ]] || fail "--config is missing (see --help)"

do_() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

do_ docker build "--file=$root/launch/gpu_docker/Dockerfile" "--tag=$image" "$root"
# --ipc=host: decoding workers use shared memory. --stop-timeout: two minutes to save a checkpoint.
do_ docker run --rm --init --gpus=all --ipc=host --stop-timeout=120 ${mounts[@]+"${mounts[@]}"} "$image" "${train[@]}"
