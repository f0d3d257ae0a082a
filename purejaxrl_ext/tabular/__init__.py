"""Tabular reinforcement learning: exact solutions of finite MDPs, value estimation from trajectories, and control."""
