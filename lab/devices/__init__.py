"""Timings of devices: the protocol (runner.py), the format and its grade (report.py), import (incoming.py).

model_torch.py alone has torch: a pack carries it to boards that have no other runtime.
"""
