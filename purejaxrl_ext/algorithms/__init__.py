"""Algorithms by name: a rule in a loop, its settings and presets."""

from purejaxrl_ext.algorithms.make import make
from purejaxrl_ext.algorithms.recipes import ALGORITHMS, Recipe
