"""One stage per module, thin: read inputs from storage, call microtome, write outputs to storage."""
