"""pickcal against RELION, Topaz and the floor of the machine: what picking costs and how well it picks.

make bench, or python -m tests.benchmarks.pickers --help
"""
