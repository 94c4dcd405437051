"""What the training loop runs: a job for each kind of training."""
