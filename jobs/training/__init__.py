"""Labels, batches and logs of training on token caches."""
