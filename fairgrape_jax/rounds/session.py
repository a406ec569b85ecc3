"""What every part of a run takes: an experiment with its data and compiled steps, and a network."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from fairgrape_jax import parallel
from fairgrape_jax.config import Experiment, apply_protocol
from fairgrape_jax.data.dataset import Dataset
from fairgrape_jax.kernels import PRUNABLE
from fairgrape_jax.masks import Tree, full_masks
from fairgrape_jax.metrics import METRICS
from fairgrape_jax.remedies import Remedy
from fairgrape_jax.rounds import steps
from fairgrape_jax.rounds.pretrained import load_pretrained
from fairgrape_jax.rounds.steps import Steps
from fairgrape_jax.systems.quantised import with_leaves_of, without_quantisers
from fairgrape_jax.training.state import State, init_state


@dataclasses.dataclass(frozen=True)
class Session:
    """What stays the same from the first step of a run to the last.

    Attributes:
        experiment: what is done.
        dataset: with which data.
        steps: by which compiled steps, and on which devices.
        metrics: the rows of the table of metrics that records hold.
    """

    experiment: Experiment
    dataset: Dataset
    steps: Steps
    metrics: tuple[str, ...] = METRICS.built_in

    @property
    def devices(self) -> list[jax.Device]:
        """The devices of this process."""
        return self.steps.devices

    @functools.cached_property
    def _steps_of_remedies(self) -> dict[Remedy, Steps]:
        return {self.experiment.remedy: self.steps}

    def of_method(self, name: str) -> Session:
        """The session as a method is put through it; the steps of each remedy are made once.

        Args:
            name: of the experiment's methods.
        """
        experiment, made = apply_protocol(self.experiment, name), self._steps_of_remedies
        if experiment.remedy not in made:
            fresh = steps.build(experiment, self.dataset, self.devices)
            if experiment.remedy.pw == self.experiment.remedy.pw:  # all but the retraining is there
                fresh = dataclasses.replace(self.steps, retrain=fresh.retrain)
            made[experiment.remedy] = fresh
        return dataclasses.replace(self, experiment=experiment, steps=made[experiment.remedy])


@dataclasses.dataclass(frozen=True)
class Network:
    """A network at some point of a run, on the devices.

    Attributes:
        state: its parameters and the rest of what training changes.
        masks: which weights are alive: bool arrays, None where a parameter is not prunable.
    """

    state: State
    masks: Tree

    @property
    def variables(self) -> Tree:
        """The parameters and running statistics, as a module takes them."""
        return steps.variables(self.state)


def open_session(
    experiment: Experiment, dataset: Dataset, devices: list[jax.Device] | None = None
) -> Session:
    """A session on the devices of this process; as many as the experiment names if None.

    Args:
        experiment: what is done.
        dataset: with which data.
        devices: those of this process to use.
    """
    devices = parallel.local_devices(experiment.execution.devices) if devices is None else devices
    return Session(experiment, dataset, steps.build(experiment, dataset, devices))


def initial_network(session: Session, seed: int) -> Network:
    """The network before training, everything alive: fresh from the seed, or with pretrained
    weights but for the last layer.

    Args:
        session: the run.
        seed: of the parameters.
    """
    state = init_state(session.steps.quantised, session.dataset, session.steps.optimizer, seed)
    experiment = session.experiment
    if experiment.pretrained:
        fresh = {"params": state.params, "batch_stats": without_quantisers(state.batch_stats)}
        loaded = load_pretrained(experiment.model, experiment.pretrained, fresh)
        batch_stats = with_leaves_of(state.batch_stats, loaded.get("batch_stats", {}))
        state = state._replace(params=loaded["params"], batch_stats=batch_stats)
    full = full_masks(state.params, PRUNABLE[experiment.prunable])
    return place_on_devices(session, Network(state, full))


def place_on_devices(session: Session, network: Network) -> Network:
    """The network on every device; its arrays may be NumPy's, or on fewer devices.

    Args:
        session: whose devices.
        network: in NumPy's arrays, or on fewer devices.
    """
    return Network(*parallel.replicate((network.state, network.masks), session.devices))


def fingerprint(network: Network) -> int:
    """A checksum of what a network computes: parameters, running statistics and masks.

    Args:
        network: on the devices.
    """
    return parallel.checksum((network.state.params, network.state.batch_stats, network.masks))


def copy_to_host(network: Network) -> Network:
    """A copy in NumPy arrays: a step takes over the buffers of the state it is given.

    Args:
        network: on the devices.
    """
    return Network(*jax.tree.map(np.array, jax.device_get((network.state, network.masks))))


def copy_on_devices(network: Network) -> Network:
    """A copy that shares no buffer of the state.

    Args:
        network: on the devices.
    """
    return Network(jax.tree.map(lambda x: x.copy(), network.state), network.masks)
