#!/bin/bash
# $run_id in $shards shards, made by `bench run ... --slurm $shards`.
# Edit it as you need.
#   bash run.sh submit      submits everything; again after a failure: what is done is kept
#   bash run.sh prepare     fetches the weights and encodes the prompts, once for all shards
#   bash run.sh sweep 3     with --risk: sweeps one shard of the images that it is calibrated on
#   bash run.sh calibrate   with --risk: makes one run of the swept shards, and calibrates on it
#   bash run.sh shard 3     scores one shard, or resumes it
#   bash run.sh merge       makes one run of all shards
set -euo pipefail
script=$$(realpath "$$0")
cd $folder
$variables
# module load cuda                      # what your cluster needs before a program starts

shards=$shards
at_once=  # shards that run at the same time; empty: as many as there is room for
# Options of sbatch, for prepare, each shard, and the merge: add --partition, --mem, ...
prepare=($prepare)
each=($each)
merge=(--time=1:00:00)
logs=$logs
bench=($bench)  # in a container: (apptainer exec --nv image.sif bench)
run=($run)
on_cpu=($on_cpu)  # of prepare, which needs no GPU
sweep=$sweep  # the run of the swept images, where --risk is calibrated on some; empty: it is not
# Five minutes before its time is over, a shard is told to stop; it is requeued and resumes.
array=(--array="1-$$shards$${at_once:+%$$at_once}" --requeue --signal=B:USR1@300)

jobs=()
submit_job() {  # name, file of the log, options and task
  local id
  id=$$(sbatch --parsable --open-mode=append --job-name="$$1" --output="$$logs/$$2" "$${@:3}")
  jobs+=("$${id%%;*}")
}
after() { echo --kill-on-invalid-dep=yes --dependency="afterok:$${jobs[-1]}"; }
cancel() { [ $${#jobs[@]} = 0 ] || scancel "$${jobs[@]}" || true; }

resumable() {  # a command, which USR1 stops and has Slurm start again
  local requeued='' code=0
  "$$@" &
  trap "requeued=1; kill -TERM $$! 2>/dev/null || true" USR1
  trap "kill -TERM $$! 2>/dev/null || true" TERM
  wait $$! || code=$$?
  while kill -0 $$! 2>/dev/null; do code=0; wait $$! || code=$$?; done  # a signal ends a wait
  [ -z "$$requeued" ] || scontrol requeue "$${SLURM_ARRAY_JOB_ID}_$$SLURM_ARRAY_TASK_ID"
  return "$$code"
}

case "$${1:-}" in
  submit)
    most=$$(scontrol show config 2>/dev/null | awk '$$1 == "MaxArraySize" {print $$3}' || true)
    if [ -n "$$most" ] && [ "$$shards" -ge "$$most" ]; then
      echo "$$shards shards, and MaxArraySize allows $$((most - 1)). Nothing was submitted." >&2
      exit 2
    fi
    trap cancel EXIT  # where one job is refused, those before it would wait or run for nothing
    submit_job prepare prepare.txt "$${prepare[@]}" "$$script" prepare
    if [ -n "$$sweep" ]; then
      submit_job sweep sweep-%a.txt "$${each[@]}" "$${array[@]}" $$(after) "$$script" sweep
      submit_job calibrate calibrate.txt "$${each[@]}" $$(after) "$$script" calibrate
    fi
    submit_job shards shard-%a.txt "$${each[@]}" "$${array[@]}" $$(after) "$$script" shard
    submit_job merge merge.txt "$${merge[@]}" --dependency="afterany:$${jobs[-1]}" "$$script" merge
    trap - EXIT
    echo "prepare $${jobs[0]}, shards $${jobs[-2]}, merge $${jobs[-1]}"
    ;;
  prepare) "$${bench[@]}" "$${run[@]}" "$${on_cpu[@]}" --warm-up ;;
  sweep)
    index=$${2:-$${SLURM_ARRAY_TASK_ID:?which shard?}}
    resumable "$${bench[@]}" "$${run[@]}" --sweep-only --shard "$$index/$$shards"
    ;;
  calibrate)
    "$${bench[@]}" results merge "$$sweep" --results $results
    "$${bench[@]}" "$${run[@]}" --sweep-only
    ;;
  shard)
    index=$${2:-$${SLURM_ARRAY_TASK_ID:?which shard?}}
    resumable "$${bench[@]}" "$${run[@]}" --shard "$$index/$$shards"
    ;;
  merge)
    id=$run_id
    if [ -n "$$sweep" ]; then  # the calibration decides which run it is
      id=$$("$${bench[@]}" "$${run[@]}" --dry-run --json | \
        $python -c 'import json, sys; print(json.load(sys.stdin)["run_id"])')
    fi
    "$${bench[@]}" results merge "$$id" --results $results
    ;;
  *) echo "bash run.sh submit, prepare, sweep N, calibrate, shard N or merge" >&2; exit 2 ;;
esac
