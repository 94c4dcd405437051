#!/usr/bin/env bash
# Trains on one machine of several that a scheduler may take away: launch/worker.sh [flags of jepa_jax.train].
#
# Training that gets SIGTERM saves its step and ends with 0, which a scheduler would take for the end of the run. This
# ends with 143 then, so that the scheduler starts it again; else with training's own exit code.
set -uo pipefail
python -m jepa_jax.train "$@" &
training=$!
told=''
stop() {
  told=yes
  kill -TERM "$training"
}
trap stop TERM
code=0
while :; do
  wait "$training" # a signal ends this, not training
  code=$?
  kill -0 "$training" 2>/dev/null || break
done
[ -z "$told" ] || exit 143
exit "$code"
