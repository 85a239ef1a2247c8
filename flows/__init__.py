"""What runs: the audit, a flow per stage, the comparison, and the command line."""
