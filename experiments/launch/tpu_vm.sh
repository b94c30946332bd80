#!/usr/bin/env bash
# Starts an experiment on every host of a TPU VM slice:
#   experiments/launch/tpu_vm.sh NAME ZONE experiments.checkerboard --batch-size 800 --parallel pmap
# Needs the gcloud command line; copies this checkout to the hosts and installs it there.
set -euo pipefail

name=${1:?usage: tpu_vm.sh NAME ZONE MODULE [OPTIONS]}
zone=${2:?usage: tpu_vm.sh NAME ZONE MODULE [OPTIONS]}
module=${3:?usage: tpu_vm.sh NAME ZONE MODULE [OPTIONS]}
shift 3
root=$(git rev-parse --show-toplevel)
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$root" archive --format=tar.gz -o "$archive" HEAD

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$zone" --worker=all; }
tpu scp "$archive" "$name:bism-jax.tar.gz"
options=$(printf ' %q' "$@")
tpu ssh "$name" --command="
  set -e
  mkdir -p bism-jax && tar -xzf bism-jax.tar.gz -C bism-jax && cd bism-jax
  make setup EXTRAS=tpu,data,experiments
  BISM_JAX_DISTRIBUTED=auto .venv/bin/python -m $module $options"
