"""Device reports: one timing of one model on one device, checked and graded. No torch here.

The format is device_report.v1.json beside this folder; what a schema can't say stands in `rules`, and what a report's
own single times say against its figures in `times`. A grade is computed from the report each time and never stored, so
nobody can type the letter. The figures that it rests on are held against the single times, and without those it is a C
at best; what a report says of its machine (power mode, clocks, throttling, swap) stays its own word.
"""

from lab.devices.report.grading import FAMILIES_WITH_POWER_MODES, GRADES, Grade, grade
from lab.devices.report.reading import is_formula, load, parse
from lab.devices.report.rules import LARGEST, REPORT_ID, SCHEMA, check, fault, schema
from lab.devices.report.times import MAX_SAMPLES, is_checked

__all__ = [
    "FAMILIES_WITH_POWER_MODES", "GRADES", "LARGEST", "MAX_SAMPLES", "REPORT_ID", "SCHEMA", "Grade", "check", "fault",
    "grade", "is_checked", "is_formula", "load", "parse", "schema",
]  # fmt: skip
