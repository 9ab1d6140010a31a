#!/bin/bash
# $run_id in $shards shards, made by `bench run ... --slurm $shards`.
# Edit it as you need.
#   bash run.sh submit      submits everything; again after a failure: what is done is kept
#   bash run.sh prepare     fetches the weights and encodes the prompts, once for all shards
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

case "$${1:-}" in
  submit)
    prepared=$$(sbatch --parsable --job-name=prepare --output="$$logs/prepare.txt" "$${each[@]}" \
      "$$script" prepare)
    scored=$$(sbatch --parsable --job-name=shards --output="$$logs/shard-%a.txt" "$${each[@]}" \
      --array="1-$$shards" --requeue --kill-on-invalid-dep=yes \
      --dependency="afterok:$${prepared%%;*}" "$$script" shard)
    merged=$$(sbatch --parsable --job-name=merge --output="$$logs/merge.txt" "$${merge[@]}" \
      --dependency="afterany:$${scored%%;*}" "$$script" merge)
    echo "prepare $${prepared%%;*}, shards $${scored%%;*}, merge $${merged%%;*}"
    ;;
  prepare) "$${bench[@]}" "$${run[@]}" --warm-up ;;
  shard)
    index=$${2:-$${SLURM_ARRAY_TASK_ID:?which shard?}}
    "$${bench[@]}" "$${run[@]}" --shard "$$index/$$shards"
    ;;
  merge) "$${bench[@]}" results merge $run_id --results $results ;;
  *) echo "bash run.sh submit, prepare, shard N or merge" >&2; exit 2 ;;
esac
