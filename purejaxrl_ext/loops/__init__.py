"""Loops: ways of collecting data, which turn a rule into an algorithm; and what trains and evaluates one agent."""

from purejaxrl_ext.loops.base import Loop, f32, greedy_value
from purejaxrl_ext.loops.evaluate import evaluate
from purejaxrl_ext.loops.measure import episode_metrics, spread
from purejaxrl_ext.loops.off_policy import OffPolicy
from purejaxrl_ext.loops.on_policy import OnPolicy, shuffles
from purejaxrl_ext.loops.train import is_measured, train
