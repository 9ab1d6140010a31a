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

shards=$shards
# Options of sbatch, for prepare and each shard, and for the merge: add --partition, --mem, ...
each=($each)
merge=(--time=1:00:00)
logs=$logs
bench=($bench)
run=($run)
sweep=$sweep  # the run of the swept images, where --risk is calibrated on some; empty: it is not

case "$${1:-}" in
  submit)
    prepared=$$(sbatch --parsable --job-name=prepare --output="$$logs/prepare.txt" "$${each[@]}" \
      "$$script" prepare)
    before=$$prepared
    if [ -n "$$sweep" ]; then
      swept=$$(sbatch --parsable --job-name=sweep --output="$$logs/sweep-%a.txt" "$${each[@]}" \
        --array="1-$$shards" --requeue --kill-on-invalid-dep=yes \
        --dependency="afterok:$${prepared%%;*}" "$$script" sweep)
      before=$$(sbatch --parsable --job-name=calibrate --output="$$logs/calibrate.txt" \
        "$${each[@]}" --kill-on-invalid-dep=yes --dependency="afterok:$${swept%%;*}" \
        "$$script" calibrate)
    fi
    scored=$$(sbatch --parsable --job-name=shards --output="$$logs/shard-%a.txt" "$${each[@]}" \
      --array="1-$$shards" --requeue --kill-on-invalid-dep=yes \
      --dependency="afterok:$${before%%;*}" "$$script" shard)
    merged=$$(sbatch --parsable --job-name=merge --output="$$logs/merge.txt" "$${merge[@]}" \
      --dependency="afterany:$${scored%%;*}" "$$script" merge)
    echo "prepare $${prepared%%;*}, shards $${scored%%;*}, merge $${merged%%;*}"
    ;;
  prepare) "$${bench[@]}" "$${run[@]}" --warm-up ;;
  sweep)
    index=$${2:-$${SLURM_ARRAY_TASK_ID:?which shard?}}
    "$${bench[@]}" "$${run[@]}" --sweep-only --shard "$$index/$$shards"
    ;;
  calibrate)
    "$${bench[@]}" results merge "$$sweep" --results $results
    "$${bench[@]}" "$${run[@]}" --sweep-only
    ;;
  shard)
    index=$${2:-$${SLURM_ARRAY_TASK_ID:?which shard?}}
    "$${bench[@]}" "$${run[@]}" --shard "$$index/$$shards"
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
