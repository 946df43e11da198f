#!/bin/bash
# Runs a job file on one node with a worker for every core, without further jobs: sbatch one_node.sh JOB.toml
#SBATCH --job-name=pickcal-node
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=3G
#SBATCH --time=04:00:00
#SBATCH --output=pickcal-%j.out
set -euo pipefail
exec pickcal run "${1:-slurm.toml}" --cluster local --workers "${SLURM_CPUS_PER_TASK:-1}" --log pickcal-log.jsonl
