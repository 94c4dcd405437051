"""What a run logs beside its metrics: audits and pictures of a step, and Weights & Biases."""
