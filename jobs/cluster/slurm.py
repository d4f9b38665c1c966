"""A job as one batch script for Slurm, which starts Ray on the nodes of its allocation, then the run."""

from __future__ import annotations

import logging
from string import Template

from jobs.cluster.cluster_job import ClusterJob
from pipeline.errors import SettingsError

log = logging.getLogger(__name__)
DRAIN_S = 120
"""Slurm sends SIGTERM this long before it ends the job."""
END_OF_RECIPE = "VTM_RECIPE_END"
SCRIPT = Template("""\
#!/bin/bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=$cores
#SBATCH --mem=${memory_gb}G
$options#SBATCH --time=$hours:00:00
#SBATCH --signal=B:TERM@$drain_s
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=$name-%j.log

# Written by `vtm submit --to slurm`: sbatch THIS_FILE. What is committed is kept; a requeued job resumes.
set -uo pipefail
$setup
recipe="$${SLURM_SUBMIT_DIR:-$$PWD}/$name-$$SLURM_JOB_ID.toml"
cat > "$$recipe" <<'$end'
$recipe
$end

mapfile -t nodes < <(scontrol show hostnames "$$SLURM_JOB_NODELIST")
head=$${nodes[0]}
port=$$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS="$$head:$$port"

# Ray runs in the background of every node until this script ends.
steps=()
stop_ray() {
    kill "$${steps[@]}" 2>/dev/null
    wait "$${steps[@]}" 2>/dev/null
}
trap stop_ray EXIT
srun --overlap --nodes=1 --ntasks=1 --nodelist="$$head" \\
    ray start --head --port="$$port" --num-cpus=$cores --num-gpus=$gpus --include-dashboard=false --block &
steps+=($$!)
until ray status > /dev/null 2>&1; do
    kill -0 "$${steps[0]}" 2>/dev/null || { echo "Ray did not start on $$head" >&2; exit 1; }
    sleep 1
done
if (( $${#nodes[@]} > 1 )); then
    srun --overlap --nodes="$$(( $${#nodes[@]} - 1 ))" --ntasks="$$(( $${#nodes[@]} - 1 ))" --exclude="$$head" \\
        ray start --address="$$RAY_ADDRESS" --num-cpus=$cores --num-gpus=$gpus --block &
    steps+=($$!)
fi

$command &
run=$$!
stopped=0
# The run writes what is complete and ends; `wait` returns early when the signal comes, so it is called once more.
trap 'stopped=1; kill -TERM "$$run" 2>/dev/null' TERM INT
wait "$$run"
code=$$?
if (( stopped )); then
    wait "$$run"
    code=$$?
    scontrol requeue "$$SLURM_JOB_ID"
fi
exit "$$code"
""")


def slurm_script(job: ClusterJob) -> str:
    """The script, for `sbatch`.

    Raises:
        SettingsError: the `[cluster]` table lacks what Slurm needs.
    """
    table = job.table
    nodes = table.gpu_nodes or table.cpu_nodes
    if not nodes:
        raise SettingsError("[cluster] has no nodes: give gpu_nodes, or cpu_nodes to encode on CPUs")
    if table.gpu_nodes and table.cpu_nodes:
        log.warning("[cluster] cpu_nodes is not used: a Slurm job has one kind of node, and GPU nodes decode too")
    if END_OF_RECIPE in job.recipe:
        raise SettingsError(f"the recipe holds the word {END_OF_RECIPE}: remove it")
    on_gpus = bool(table.gpu_nodes)
    options = f"#SBATCH --gpus-per-node={table.gpus_per_node}\n" if on_gpus else ""
    options += f"#SBATCH --partition={table.partition}\n" if table.partition else ""
    return SCRIPT.substitute(
        name=job.name,
        nodes=nodes,
        cores=table.gpu_node_cores if on_gpus else table.cpu_node_cores,
        memory_gb=table.gpu_node_memory_gb if on_gpus else table.cpu_node_memory_gb,
        gpus=table.gpus_per_node if on_gpus else 0,
        options=options,
        hours=table.hours,
        drain_s=DRAIN_S,
        setup=table.setup,
        end=END_OF_RECIPE,
        recipe=job.recipe.rstrip("\n"),
        command=job.line("RECIPE").replace("--config RECIPE", '--config "$recipe"'),
    )
