"""Cost model of a compiled training step: FLOPs, memory, communication, and a lower bound on its time.

The target devices need not be present. A report is built in this order: topology → program (lowered, compiled) → hlo →
collectives, traffic; memory, flops → roofline → report.
"""
