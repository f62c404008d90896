"""Timings of devices: the protocol (runner.py), the report format and its grade (report.py). No torch here."""
