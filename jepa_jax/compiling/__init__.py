"""A training step compiled for devices that are not there: what it costs, whether it fits, what bounds it.

The way of a report: topology → program (lowered, compiled) → hlo → collectives, traffic; memory, flops → roofline →
report.
"""
