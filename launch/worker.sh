#!/usr/bin/env bash
# Trains on one of several machines that may be preempted: launch/worker.sh [flags of jepa_jax.train].
#
# Forwards SIGTERM to training, which saves a checkpoint, and exits with 143, even if the signal came before training
# could catch it, so that the scheduler restarts it. Otherwise exits with training's exit code.
set -uo pipefail
# The trap comes first: a signal that arrives while training starts is kept until its process is known.
stopping='' training=''
stop() {
  stopping=yes
  [ -z "$training" ] || kill -TERM "$training"
}
trap stop TERM
python -m jepa_jax.train "$@" &
training=$!
[ -z "$stopping" ] || kill -TERM "$training"
code=0
while :; do
  wait "$training" # a signal interrupts the wait, not training
  code=$?
  kill -0 "$training" 2>/dev/null || break
done
[ -z "$stopping" ] || exit 143
exit "$code"
