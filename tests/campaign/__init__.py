"""Robustness campaigns on a budget of time: kills, command lines, data files, run folders. `make campaign` starts them.

A case is made from its number and the seed alone: `make campaign CASE=lines:17 SEED=1` plays it again.
"""
