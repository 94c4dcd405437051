# shellcheck shell=bash
# What jobset.sh and study_jobset.sh share; they source it.

usage() {
  sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "$0"
  exit "$1"
}

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# Deletes the JobSet $1; only prints the command if $2 is not empty.
delete_jobset() {
  local command=(kubectl delete jobset "$1")
  if [ -n "$2" ]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
  fi
  exec "${command[@]}"
}

# Checks that flags name a config and a workdir in a bucket.
require_flags() {
  local given=" $* "
  [[ $given == *" --config"[\ =]* ]] || fail "--config is missing (see --help)"
  [[ $given == *" --workdir"[\ =]gs://* ]] || fail "--workdir=gs://BUCKET/PATH is missing: machines share no disk"
}

# Prints its arguments as a YAML list of strings in single quotes; quotes inside them are doubled.
yaml_list() {
  local list='[' argument
  for argument in "$@"; do
    list+="'${argument//\'/\'\'}', "
  done
  echo "${list%, }]"
}

# Replaces ${$1} in `jobset` by $2.
fill() {
  jobset=${jobset//"\${$1}"/"$2"}
}

# Applies `jobset`; only prints the command if $1 is not empty.
apply_jobset() {
  if [ -n "$1" ]; then
    echo "kubectl apply -f - <<'JOBSET'"
    echo "$jobset"
    echo JOBSET
  else
    kubectl apply -f - <<<"$jobset"
  fi
}
