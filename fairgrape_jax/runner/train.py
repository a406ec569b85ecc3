"""The trainings of a stage: of the dense network, before the choice of a round, and after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax

from fairgrape_jax import remedies
from fairgrape_jax.config import Stage
from fairgrape_jax.masks import Tree
from fairgrape_jax.methods import Preparation
from fairgrape_jax.passes import Fold
from fairgrape_jax.recovery import rollback
from fairgrape_jax.rounds import select
from fairgrape_jax.rounds.ingredients import NOBODY, TakingPart, Target, approach_ingredients
from fairgrape_jax.rounds.retraining import retraining_step
from fairgrape_jax.rounds.saves import Place
from fairgrape_jax.rounds.session import Network, Session
from fairgrape_jax.rounds.train import Training
from fairgrape_jax.runner.round import Round
from fairgrape_jax.storage.slots import Slots
from fairgrape_jax.training.state import State


def train(
    this: Round,
    network: Network,
    stages: Sequence[Stage],
    *,
    dense: Network | None = None,
    scored: Session | None = None,
    preparation: Preparation | None = None,
    after: Callable[[int, State], None] = lambda epochs, state: None,
) -> Place:
    """The place at the end of the stages; a save is gone on from.

    Args:
        this: the stage of the run.
        network: where training begins; the devices take over the buffers of its state.
        stages: what to go through.
        dense: the network before pruning, for a loss that looks at it; None before there is one.
        scored: the session with the groups that scores look at; None before there are such.
        preparation: what a training before the choice is like; None for any other.
        after: as for `rounds.train.run_stages`.
    """
    remedy, taking = this.session.experiment.remedy, NOBODY
    if dense is not None:
        rows = remedies.active(remedy) if preparation is None else preparation.ingredients
        taking = TakingPart(rows, scored or this.session, dense)
    training = dataclasses.replace(
        make_training(this, network, taking, quantised=dense is not None and preparation is None),
        series=f"seed_{this.seed}/{this.method}",
    )
    if preparation is not None:
        title = f"{this.title}, before the choice"
        training = dataclasses.replace(training, title=title, slots=this.preparation_slots)
    return rollback.run_stages(
        training, network.state, stages, directory=this.directory, after=after
    )


def make_training(
    this: Round, network: Network, taking: TakingPart, *, quantised: bool = False
) -> Training:
    """A training of a round with the ingredients that take part in it.

    Args:
        this: the round.
        network: with the masks that it keeps to.
        taking: who takes part, with the dense network; nobody in the dense training itself.
        quantised: whether the network runs with the quantisers of the run, if it has any.
    """
    session, step = this.session, this.session.steps.train
    quantised = quantised and session.experiment.quantise.active
    if taking.session is not None and taking.dense is not None:
        remedy, dataset = session.experiment.remedy, taking.session.dataset
        step = retraining_step(
            session.steps,
            remedy,
            taking.dense.state,
            dataset,
            taking.active,
            quantised=quantised,
        )
    return Training(
        session=session,
        masks=network.masks,
        step=step,
        seed=this.seed,
        title=this.title,
        slots=this.slots,
        passes=this.passes,
        taking=taking,
        quantised=quantised,
    )


def approach(
    this: Round,
    network: Network,
    stage: Stage,
    *,
    density: float,
    dense: Network,
    scored: Session,
    chosen: Tree = None,
) -> Place:
    """The place at the end of the training that comes before a round's masks.

    A round that is stopped later goes through it again from its last save, to the same bits.

    Args:
        this: the round.
        network: at its start; the devices take over the buffers of its state.
        stage: what to go through.
        density: of the masks that it leads to.
        dense: the network before pruning.
        scored: the session with the groups that scores look at.
        chosen: the masks, on the devices, where the method chooses first.
    """
    active = approach_ingredients(this.session.experiment, this.method)

    def choose_now(network: Network, *, fold: Fold) -> Tree:
        masks, _ = select.select(
            scored,
            network,
            this.method,
            density=density,
            seed=this.draw,
            dense=dense,
            fold=fold,
        )
        return masks

    target = Target(density, choose_now, None if chosen is None else jax.device_get(chosen))
    training = dataclasses.replace(
        make_training(this, network, TakingPart(active, scored, dense, target)),
        title=f"{this.title}, before its choice",
        slots=Slots(this.directory / "partial/approach"),
    )
    place = rollback.run_stages(training, network.state, [stage], directory=this.directory)
    this.passes.clear()
    return place
