#!/bin/bash
# Runs a job file from within SLURM: this job is the scheduler, and submits its workers. sbatch pickcal.sh JOB.toml
#SBATCH --job-name=pickcal
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=08:00:00
#SBATCH --output=pickcal-%j.out
set -euo pipefail
# a job that ran into its time limit goes on where it was when it is submitted again
exec pickcal run "${1:-slurm.toml}" --log pickcal-log.jsonl
