#!/usr/bin/env bash
# Starts an experiment on SLURM, one process a GPU:
#   sbatch --nodes=2 --gpus-per-node=4 experiments/launch/slurm.sh experiments.checkerboard --batch-size 800
# Run from the root of the repository, on a file system that all nodes share; `make setup` comes first.
#SBATCH --job-name=bism-jax
#SBATCH --ntasks-per-gpu=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=runs/slurm-%j.log
set -euo pipefail

module=${1:?usage: sbatch slurm.sh MODULE [OPTIONS]}
shift
export BISM_JAX_DISTRIBUTED=auto
# One folder for all processes and for a requeued job, which continues from its newest checkpoint.
output=runs/${module##*.}-${SLURM_JOB_ID}
srun .venv/bin/python -m "$module" --output "$output" "$@"
