"""A recipe on a cluster: submitted to Ray, or written as a job for KubeRay or Slurm."""
