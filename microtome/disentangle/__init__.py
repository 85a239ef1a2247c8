"""Take a network apart: interpretable layers and fine-tuning, decision trees, explanatory graphs."""
