#!/usr/bin/env bash
# Trains with several processes on this machine, running the same program as a pod does with one process per machine.
#
#   launch/local.sh --processes N [--cpu-devices D | --gpus-each G] [--dry-run] --config FILE[:RECIPE] [more flags]
#
#   --processes N     number of processes
#   --cpu-devices D   each process has D virtual CPU devices, to test a pod's program without a pod
#   --gpus-each G     each process has G of this machine's GPUs: the first G, the next G, …
#   --dry-run         prints the commands without running them
#   more flags        flags of jepa_jax.train, such as --workdir and --config.key=value
#
# Process 0 prints here, the others write to log files. If one dies, the others are stopped, and this script prints which
# one died, its exit code and the end of its log, and exits with the same code. SIGTERM or Ctrl-C makes all processes
# save the same step, and the script exits with their code, 143 or 130; a second signal kills them. Run the same command
# again to resume.
set -euo pipefail

grace=15 # seconds that the others have to exit after one has died

usage() {
  sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "$0"
  exit "$1"
}

fail() {
  echo "local.sh: $*" >&2
  exit 2
}

processes='' cpu_devices='' gpus_each='' dry_run=''
train=()
while [ $# -gt 0 ]; do
  case "$1" in --processes=* | --cpu-devices=* | --gpus-each=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
  case "$1" in
    --processes | --cpu-devices | --gpus-each)
      [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || fail "$1 needs a number of at least 1, not '${2:-}'"
      case "$1" in
        --processes) processes=$2 ;;
        --cpu-devices) cpu_devices=$2 ;;
        --gpus-each) gpus_each=$2 ;;
      esac
      shift
      ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage 0 ;;
    *) train+=("$1") ;;
  esac
  shift
done
[ -n "$processes" ] || fail "--processes is missing (see --help)"
[ ${#train[@]} -gt 0 ] || fail "--config is missing (see --help)"
[ -z "$cpu_devices" ] || [ -z "$gpus_each" ] || fail "choose one of --cpu-devices and --gpus-each"

free_port() {
  python -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
}

# Sets `settings` and `command` to the environment and the command of process $1.
compose() {
  settings=()
  if [ -n "$cpu_devices" ]; then
    settings=(JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$cpu_devices")
  elif [ -n "$gpus_each" ]; then
    local first=$(($1 * gpus_each))
    settings=("JAX_LOCAL_DEVICE_IDS=$(seq -s, "$first" $((first + gpus_each - 1)))")
  fi
  command=(python -m jepa_jax.train "--coordinator=localhost:$port" "--processes=$processes" "--process_id=$1" "${train[@]}")
}

if [ -n "$dry_run" ]; then
  port=PORT
  for ((i = 0; i < processes; i++)); do
    compose "$i"
    printf '%q ' ${settings[@]+"${settings[@]}"} "${command[@]}"
    echo '&'
  done
  exit 0
fi

port=$(free_port)
logs=$(mktemp -d "${TMPDIR:-/tmp}/jepa_jax-XXXXXX")
pids=()

# shellcheck disable=SC2329 # called by the trap
signal_all() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill "-$1" "$pid" 2>/dev/null || true; done
}

stopping=''
# shellcheck disable=SC2329 # called by the trap
stop() {
  if [ -n "$stopping" ]; then
    signal_all KILL
    echo "local.sh: killed all processes; the last checkpoint is kept." >&2
    exit 130
  fi
  stopping=yes
  signal_all TERM
}
trap stop TERM INT

for ((i = 0; i < processes; i++)); do
  compose "$i"
  if [ "$i" -eq 0 ]; then
    env ${settings[@]+"${settings[@]}"} "${command[@]}" &
  else
    env ${settings[@]+"${settings[@]}"} "${command[@]}" >"$logs/process-$i.log" 2>&1 &
  fi
  pids+=($!)
done
[ -z "$stopping" ] || signal_all TERM # a signal while they started reached some of them only
[ "$processes" -eq 1 ] || echo "Processes 1 to $((processes - 1)) write to $logs." >&2

# Moves the processes that have ended from `running` to `ended`, and their exit codes to `codes`.
running=() ended=() codes=()
for ((i = 0; i < processes; i++)); do running+=("$i"); done
look() {
  local i left=()
  for i in ${running[@]+"${running[@]}"}; do
    if kill -0 "${pids[$i]}" 2>/dev/null; then
      left+=("$i")
    else
      codes[i]=0
      wait "${pids[$i]}" || codes[i]=$?
      ended+=("$i")
    fi
  done
  running=(${left[@]+"${left[@]}"})
}

# Sets `dead` to the process of `ended` that died first, if one of them died. The others fail within milliseconds of
# losing their connection to it, with an exit code of their own: of several, it is one that was killed, if any was.
find_dead() {
  local i
  for i in "${ended[@]}"; do
    case "${codes[$i]}" in
      0) ;;
      130 | 143) stopped_code=${codes[$i]} ;; # saved its step, as all others do
      *) if [ -z "$dead" ] || { [ "${codes[$dead]}" -le 128 ] && [ "${codes[$i]}" -gt 128 ]; }; then dead=$i; fi ;;
    esac
  done
}

describe() {
  if [ "$1" -gt 128 ]; then echo "killed by SIG$(kill -l $(($1 - 128)))"; else echo "exit code $1"; fi
}

dead='' deadline=0 stopped_code=0
while [ ${#running[@]} -gt 0 ]; do
  ended=()
  look
  if [ ${#ended[@]} -eq 0 ]; then
    if [ -n "$dead" ] && [ "$SECONDS" -ge "$deadline" ]; then
      for i in "${running[@]}"; do kill -KILL "${pids[$i]}" 2>/dev/null || true; done
    fi
    sleep 0.2
  elif [ -z "$dead" ]; then
    look # one that ended after its turn above may be the cause of what was seen
    find_dead
    if [ -n "$dead" ]; then
      deadline=$((SECONDS + grace))
      echo "local.sh: process $dead of $processes died ($(describe "${codes[$dead]}")); stopping the others." >&2
    fi
  fi
done

if [ -z "$dead" ]; then
  rm -r "$logs"
  exit "$stopped_code"
fi
echo "local.sh: all processes have stopped. Process $dead died first ($(describe "${codes[$dead]}"))." >&2
if [ "$dead" -eq 0 ]; then
  echo "local.sh: its output is above; the output of the others is in $logs." >&2
else
  echo "local.sh: the end of its output ($logs/process-$dead.log):" >&2
  tail -n 20 "$logs/process-$dead.log" >&2
fi
exit "${codes[$dead]}"
