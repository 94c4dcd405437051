#!/usr/bin/env bash
# Trains on a TPU slice of a Kubernetes (GKE) cluster with JobSet, such as xpk creates.
#
#   launch/jobset.sh --name NAME --image IMAGE --topology TOPOLOGY [--delete] [--dry-run] --config FILE[:RECIPE] [flags of jepa_jax.train]
#
#   --name NAME          of the JobSet, your choice
#   --image IMAGE        built from launch/gpu_docker/Dockerfile with --build-arg EXTRA=tpu
#   --topology TOPOLOGY  as of jepa_jax.compile: v4:2x2x2, v5e:4x4, v5p:2x2x4, v6e:4x4
#   --delete             removes the run from the cluster; training saves a checkpoint first
#   --dry-run            prints the command and the JobSet without running it
#
# --workdir must be in a bucket (gs://BUCKET/PATH). After a preemption the run is restarted and resumes from it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=jobset_common.sh
source "$here/jobset_common.sh"

name='' image='' topology='' delete='' dry_run=''
train=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --image | --topology)
      [ -n "${2:-}" ] || fail "$1 needs a value"
      declare "${1#--}=$2"
      shift
      ;;
    --delete) delete=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage 0 ;;
    *) train+=("$1") ;;
  esac
  shift
done
[ -n "$name" ] || fail "--name is missing (see --help)"

[ -z "$delete" ] || delete_jobset "$name" "$dry_run"

[ -n "$image" ] || fail "--image is missing (see --help)"
require_flags "${train[*]-}"
case "$topology" in
  v4:*) accelerator=tpu-v4-podslice ;;
  v5e:*) accelerator=tpu-v5-lite-podslice ;;
  v5p:*) accelerator=tpu-v5p-slice ;;
  v6e:*) accelerator=tpu-v6e-slice ;;
  *) fail "--topology is '$topology'; expected v4, v5e, v5p or v6e with a shape, as in v5e:4x4" ;;
esac
shape=${topology#*:}
[[ $shape =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] || fail "--topology is '$topology'; expected a shape as in v5e:4x4"
chips=$((${shape//x/*}))
each=$((chips < 4 ? chips : 4)) # chips per machine, in slices of several machines
[ $((chips % each)) -eq 0 ] || fail "$topology has $chips chips, not a multiple of $each"

jobset=$(<"$here/jobset.yaml")
fill NAME "$name"
fill IMAGE "$image"
fill ACCELERATOR "$accelerator"
fill TOPOLOGY "$shape"
fill CHIPS "$each"
fill MACHINES "$((chips / each))"
fill ARGUMENTS "$(yaml_list "${train[@]}")"
# Several pods find each other through variables that GKE sets; a single pod needs the number of processes.
if [ "$chips" -eq "$each" ]; then fill ENVIRONMENT '[{name: JAX_NUM_PROCESSES, value: "1"}]'; else fill ENVIRONMENT '[]'; fi

apply_jobset "$dry_run"
