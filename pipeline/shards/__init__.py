"""Run folders: the plan, shards and their manifests, records, and reading them back. The only home of pyarrow."""
