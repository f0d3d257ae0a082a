"""Loops: ways of collecting data, which turn a rule into an algorithm; and what drives one agent."""

from purejaxrl_ext.loops.evaluate import evaluate
from purejaxrl_ext.loops.on_policy import *  # noqa: F403
from purejaxrl_ext.loops.train import is_measured, train
