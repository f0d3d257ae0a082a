"""Networks: torsos, the actor-critic and the Q-network made of them, memories, and policies (distributions of actions)."""

from purejaxrl_ext.networks.actor_critic import ActorCritic
from purejaxrl_ext.networks.init import INITIALIZERS, fan_in_uniform, initializers, orthogonal
from purejaxrl_ext.networks.masked import Masked
from purejaxrl_ext.networks.nnx import Nnx
from purejaxrl_ext.networks.policies import Categorical, Gaussian, MultiCategorical, TanhGaussian
from purejaxrl_ext.networks.q_network import DistributionalQNetwork, QNetwork
from purejaxrl_ext.networks.recurrent import GRU, LSTM, MEMORIES, RecurrentActorCritic, RecurrentQNetwork
from purejaxrl_ext.networks.structure import Layer, layers, parameter_group
from purejaxrl_ext.networks.torsos import ACTIVATIONS, LARGE_IMAGE, SMALL_IMAGE, Conv, PatchConv, Torso
