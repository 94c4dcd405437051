#!/usr/bin/env bash
# Runs a study on a Kubernetes cluster with JobSet and Kueue: WORKERS pods share its runs.
#
#   launch/study_jobset.sh --name NAME --image IMAGE --queue QUEUE --workers N [options] [--delete] [--dry-run] --config CONFIG --workdir gs://… [flags of jepa_jax.study]
#
#   --name NAME        of the JobSet, your choice
#   --image IMAGE      built from launch/gpu_docker/Dockerfile with --build-arg EXTRA=gpu,gcs
#   --queue QUEUE      Kueue's LocalQueue
#   --workers N        pods, each with one run at a time
#   --gpus N           of each pod; default 1, 0 for CPUs only
#   --cpus N           of each pod; default 8
#   --memory SIZE      of each pod; default 32Gi
#   --delete           removes the JobSet; workers save their runs first
#   --dry-run          prints the command and the JobSet without running it
#
# --workdir must be in a bucket (gs://BUCKET/PATH). A pod that is preempted is started again and continues.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=jobset_common.sh
source "$here/jobset_common.sh"

name='' image='' queue='' workers='' gpus=1 cpus=8 memory=32Gi delete='' dry_run=''
study=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --image | --queue | --workers | --gpus | --cpus | --memory)
      [ -n "${2:-}" ] || fail "$1 needs a value"
      declare "${1#--}=$2"
      shift
      ;;
    --delete) delete=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage 0 ;;
    *) study+=("$1") ;;
  esac
  shift
done
[ -n "$name" ] || fail "--name is missing (see --help)"

[ -z "$delete" ] || delete_jobset "$name" "$dry_run"

[ -n "$image" ] || fail "--image is missing (see --help)"
[ -n "$queue" ] || fail "--queue is missing (see --help)"
[[ $workers =~ ^[1-9][0-9]*$ ]] || fail "--workers is '$workers'; expected a number of pods"
for number in gpus cpus; do
  [[ ${!number} =~ ^[0-9]+$ ]] || fail "--$number is '${!number}'; expected a number"
done
require_flags "${study[*]-}"

jobset=$(<"$here/study_jobset.yaml")
fill NAME "$name"
fill IMAGE "$image"
fill QUEUE "$queue"
fill WORKERS "$workers"
fill GPUS "$gpus"
fill CPUS "$cpus"
fill MEMORY "$memory"
fill ARGUMENTS "$(yaml_list "${study[@]}")"

apply_jobset "$dry_run"
