#!/bin/bash
# A run, or one run per task of an array, or a sweep, as a SLURM job that goes on after a time-out and a preemption.
#
#   sbatch --array=0-2 sweeps/slurm/job.sh dataset=regdb     # seeds 0, 1 and 2, each a task
#   sbatch sweeps/slurm/job.sh dataset=sysu seed=3           # one run
#   sbatch sweeps/slurm/job.sh sweeps=table2                 # a sweep, its jobs one after the other
#
# Options of sbatch before the script's name replace those below, for instance --partition, --gres=gpu:1, --time.
# `python` is the one of the shell that calls sbatch.
#SBATCH --job-name=bdlf
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

srun --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    python -m bdlf.train ${SLURM_ARRAY_TASK_ID:+"seed=$SLURM_ARRAY_TASK_ID"} "$@"
code=$?
# 75: saved, because the time is nearly up (USR1) or another job needs the node (TERM). SLURM itself requeues only what
# does not end by itself. Later the same command goes on in the same run folder.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
