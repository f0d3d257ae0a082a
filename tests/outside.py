"""SAC for discrete actions (Christodoulou 2019, arXiv 1910.07207), written as a user of the package would, in one file.

y = r + γ (1 − terminated) Σ_a π(a|s') (min_i Q⁻_i(s', a) − α log π(a|s'))
L = Σ_i ½ E[(Q_i(s, a) − y)²] + E[Σ_a π(a|s) (α log π(a|s) − min_i Q_i(s, a))],  the Q of the latter held fixed; α a setting
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

import purejaxrl_ext as prx
from purejaxrl_ext import dqn, policies, q_learning
from purejaxrl_ext.networks import Categorical


class SACHparams(dqn.DQNHparams):
    temperature: float = prx.hparam(0.05, low=0.0)


class Network(nn.Module):
    num_actions: int
    hidden_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, obs):
        def head(name):
            x = obs
            for i, size in enumerate(self.hidden_sizes):
                x = nn.relu(nn.Dense(size, name=f"{name}_{i}")(x))
            return nn.Dense(self.num_actions, name=f"{name}_head")(x)

        twins = jnp.stack([head("critic_a"), head("critic_b")], axis=-1)
        return prx.Output(policy=Categorical(head("actor")), q_values=twins.min(-1), returns=twins)


def soft_value(policy, q_values, hparams):
    log_pi = jax.nn.log_softmax(policy.logits)
    return (jnp.exp(log_pi) * (q_values - hparams.temperature * log_pi)).sum(-1)


def bootstrap(hparams, next_output, next_online):
    return soft_value(next_online.policy, next_output.q_values, hparams)


def targets(rollout, hparams):
    return q_learning.targets(rollout, hparams, bootstrap=partial(bootstrap, hparams))


def loss(output, batch, hparams):
    error = q_learning.chosen(output.returns.swapaxes(-1, -2), batch.action[:, None]) - batch.target[:, None]
    critic = 0.5 * (batch.weight * jnp.square(error).sum(-1)).mean()
    actor = -soft_value(output.policy, jax.lax.stop_gradient(output.q_values), hparams).mean()
    entropy = policies.entropy(output.policy).mean()
    return critic + actor, {
        "critic_loss": critic,
        "actor_loss": actor,
        "entropy": entropy,
        "td_error": abs(error).mean(-1),
    }


def act(output, noise, hparams, env_steps):
    return policies.sample(output.policy, noise)


def successor(output):
    return prx.Output(policy=output.policy, q_values=output.q_values)


def rule(config, action_space):
    return prx.Rule(partial(policies.noise, space=action_space), act, targets, loss, successor=successor)


def network(config, env):
    return Network(env.action_space.n, config.hidden_sizes)


SAC = prx.ALGORITHMS["dqn"].but(name="sac", rule=rule, hparams=SACHparams, network=network)
