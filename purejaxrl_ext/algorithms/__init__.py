"""Algorithms by name: a rule in a loop, its settings and presets."""

from purejaxrl_ext.algorithms.make import ALGORITHMS, Recipe, make
