"""Objectives: what is added up to make the loss. One small file a family; `recipes` is the table of the study."""
