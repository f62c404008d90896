"""Timings of devices: the protocol (runner/), the format and its grade (report/), import (incoming.py).

A pack carries the protocol as one file (bundle.py), and model_torch.py, which alone has torch, for boards that have no
other runtime.
"""
