#!/usr/bin/env bash
# Trains on a Cloud TPU slice: one process on each of its machines, started over ssh by gcloud.
#
#   launch/tpu_pod.sh COMMAND --name NAME --zone ZONE --type TYPE [options] --config FILE[:RECIPE] [flags of jepa_jax.train]
#
# Commands:
#   run       create, install, train; repeats all of them after a preemption until training has ended; keeps the slice
#   create    requests the slice (a queued resource) and waits until it is active
#   install   copies this checkout to all machines and installs it
#   train     trains on all machines; resumes the run in --workdir, if any
#   stop      makes training save a checkpoint and exit
#   status    prints the state of the slice
#   delete    deletes the slice, which ends its costs
#
# Options:
#   --name NAME        of the slice, your choice
#   --zone ZONE        such as us-west4-a
#   --type TYPE        such as v5litepod-16 (16 chips v5e), v5p-32 (16 chips: it counts cores), v6e-16, v4-32
#   --project PROJECT  default: gcloud's
#   --version VERSION  runtime version of the machines; default: chosen for the type
#   --spot             cheaper, but may be preempted at any time
#   --dry-run          prints the commands without running them
#
# --workdir must be in a bucket (gs://BUCKET/PATH), which all machines share and which outlives them.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "$0"
  exit "$1"
}

fail() {
  echo "tpu_pod.sh: $*" >&2
  exit 2
}

[ $# -gt 0 ] || usage 2
command=$1
shift
name='' zone='' type='' project='' version='' spot='' dry_run=''
train=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name | --zone | --type | --project | --version)
      [ -n "${2:-}" ] || fail "$1 needs a value"
      case "$1" in
        --name) name=$2 ;;
        --zone) zone=$2 ;;
        --type) type=$2 ;;
        --project) project=$2 ;;
        --version) version=$2 ;;
      esac
      shift
      ;;
    --spot) spot=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage 0 ;;
    *) train+=("$1") ;;
  esac
  shift
done
case "$command" in
  run | create | install | train | stop | status | delete) ;;
  -h | --help) usage 0 ;;
  *) fail "'$command' is not a command (see --help)" ;;
esac
[ -n "$name" ] || fail "--name is missing (see --help)"
[ -n "$zone" ] || fail "--zone is missing (see --help)"
case "$command" in
  run | create)
    [ -n "$type" ] || fail "--type is missing (see --help)"
    if [ -z "$version" ]; then
      case "$type" in
        v4-*) version=tpu-ubuntu2204-base ;;
        v5litepod-*) version=v2-alpha-tpuv5-lite ;;
        v5p-*) version=v2-alpha-tpuv5 ;;
        v6e-*) version=v2-alpha-tpuv6e ;;
        *) fail "no --version is known for --type $type: give one" ;;
      esac
    fi
    ;;
esac
case "$command" in
  run | train)
    given=" ${train[*]+"${train[*]}"} "
    [[ $given == *" --config"[\ =]* ]] || fail "--config is missing (see --help)"
    [[ $given == *" --workdir"[\ =]gs://* ]] || fail "--workdir=gs://BUCKET/PATH is missing: machines share no disk"
    ;;
esac

where=("--zone=$zone")
[ -z "$project" ] || where+=("--project=$project")
queue=(gcloud compute tpus queued-resources)
vm=(gcloud compute tpus tpu-vm)

# Runs a command, or prints it.
do_() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_all() {
  do_ "${vm[@]}" ssh "$name" "${where[@]}" --worker=all "--command=$1"
}

# Prints ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, …; ABSENT if the slice does not exist.
state() {
  "${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)' 2>/dev/null || echo ABSENT
}

create() {
  local options=("--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version")
  [ -z "$spot" ] || options+=(--spot)
  do_ "${queue[@]}" create "$name" "${where[@]}" "${options[@]}"
  if [ -n "$dry_run" ]; then
    do_ "${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)'
    return
  fi
  local now
  while now=$(state) && [ "$now" != ACTIVE ]; do
    case "$now" in
      FAILED | SUSPENDED | SUSPENDING | ABSENT) fail "$name is $now; '$0 delete' removes the request" ;;
    esac
    echo "$name is $now; checking again in 30 seconds." >&2
    sleep 30
  done
}

install() {
  local part parts=()
  for part in pyproject.toml setup.py README.md LICENSE jepa_jax configs launch; do parts+=("$root/$part"); done
  on_all 'mkdir -p checkout'
  do_ "${vm[@]}" scp --recurse "${parts[@]}" "$name:checkout/" "${where[@]}" --worker=all
  # The machines' own Python is older than 3.11.
  on_all 'python3 -m pip install --quiet --user uv && ~/.local/bin/uv venv --quiet --clear --python 3.12 ~/venv &&
    ~/.local/bin/uv pip install --quiet --python ~/venv/bin/python "./checkout[tpu]"'
}

train() {
  local quoted
  quoted=$(printf '%q ' "${train[@]}")
  on_all "cd checkout && PATH=~/venv/bin:\$PATH exec launch/worker.sh $quoted"
}

delete() {
  do_ "${queue[@]}" delete "$name" "${where[@]}" --force --quiet
}

# Training succeeds when it is done; it fails when the slice is preempted, or after an error (see worker.sh).
run() {
  if [ -n "$dry_run" ]; then
    create && install && train
    echo "# if training fails and the slice is no longer ACTIVE: delete it and repeat all steps"
    delete
    return
  fi
  [ "$(state)" = ACTIVE ] || create
  install
  until train; do
    sleep 60 # until the state of a preempted slice is updated
    [ "$(state)" != ACTIVE ] || fail "training failed, and the slice still exists: see the output above"
    echo "tpu_pod.sh: $name was preempted; requesting it again." >&2
    delete || true
    create
    install
  done
}

case "$command" in
  stop) on_all 'pkill -TERM -f "[p]ython -m jepa_jax.train"' ;;
  status) do_ "${queue[@]}" describe "$name" "${where[@]}" '--format=value(state.state)' ;;
  *) "$command" ;;
esac
