"""Stage `finetuning`."""
