"""From records to tests: evidence (accuracies by recipe and seed) → inference (intervals, tests) → contrasts."""
