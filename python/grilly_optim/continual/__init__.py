"""Continual learning: penalties that keep a network from forgetting earlier tasks."""

from grilly_optim.continual.ewc import EWC
from grilly_optim.continual.fisher import Fisher
from grilly_optim.continual.synaptic_intelligence import SynapticIntelligence

__all__ = ["EWC", "Fisher", "SynapticIntelligence"]
