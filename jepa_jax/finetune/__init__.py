"""Fine-tuning: an encoder and a classification head, trained together on labelled clips."""
