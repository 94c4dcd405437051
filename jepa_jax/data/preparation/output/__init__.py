"""State of the output folder: locks, the recorded plan, disk space, completion."""
