"""What a training says of its epochs, and the place that it saves."""

import dataclasses
import re

import numpy as np
import pytest

from fairgrape_jax.config import Stage
from fairgrape_jax.data import load
from fairgrape_jax.rounds import train
from fairgrape_jax.rounds.predict import predict
from fairgrape_jax.rounds.saves import Place, save
from fairgrape_jax.rounds.session import Network
from fairgrape_jax.rounds.train import Training
from fairgrape_jax.storage.resumable import Passes
from fairgrape_jax.storage.slots import Slots
from fairgrape_jax.training import finite
from tests.helpers.experiments import TINY, opened


@pytest.fixture(scope="module")
def session():
    experiment = dataclasses.replace(TINY, model="mlp")
    return opened(experiment, load(experiment.data))[0]


def begin(session, directory):
    """A training in a directory, and the state that it begins with."""
    _, network = opened(session.experiment, session.dataset)
    training = Training(
        session=session,
        masks=network.masks,
        step=session.steps.train,
        seed=0,
        title="seed 0 dense",
        slots=Slots(directory),
        passes=Passes(directory / "passes", session.devices),
    )
    return training, network.state


def test_the_validation_accuracy_is_shown_while_it_trains(session, tmp_path, monkeypatch, capsys):
    """In the line of every epoch that is validated, and in its record; it is the true one."""
    monkeypatch.setattr(train, "SILENCE", 0.0)
    training, state = begin(session, tmp_path)
    stages = [Stage((1,), (1e-2,)), Stage((1,), (1e-3,), best=True)]
    place = train.run_stages(training, state, stages)
    predictions = predict(session, Network(place.state, training.masks), "validation")
    right = np.mean(predictions.labels == predictions.predictions)
    assert "validation_accuracy" not in place.history[0]
    assert place.history[1]["validation_accuracy"] == pytest.approx(100 * right)
    lines = capsys.readouterr().out.splitlines()
    assert [bool(re.search("validation accuracy", line)) for line in lines] == [False, True]
    assert f"epoch 2/2  loss {place.history[1]['loss']:.4f}" in lines[1]
    assert f"validation accuracy {100 * right:.1f}" in lines[1]


@pytest.mark.parametrize("best", [False, True])
@pytest.mark.parametrize("trained", [None, {"epoch": 3, "rate": 0.1, "loss": 0.5}])
def test_a_place_is_restored_as_it_was_saved(best, trained, session, tmp_path):
    training, state = begin(session, tmp_path)
    other = finite.to_host(state)._replace(epoch=np.int32(7))
    place = Place(
        state,
        ({"epoch": 1, "rate": 0.1, "loss": 1.0},),
        best=other if best else None,
        best_loss=0.25 if best else np.inf,
        done=4,
        total=2.5,
        trained=trained,
    )
    save(training.slots, place)
    training.slots.wait()
    found = train.restore_place(begin(session, tmp_path)[0], state)
    assert dataclasses.replace(found, state=None, best=None) == dataclasses.replace(
        place, state=None, best=None
    )
    assert (found.best is not None) == best
    assert not best or found.best.epoch == 7


def test_the_newest_sound_save_is_the_one_to_go_on_from(session, tmp_path, capsys):
    training, state = begin(session, tmp_path)
    for step in (3, 5):
        save(training.slots, Place(state._replace(step=np.int32(step)), done=step))
    training.slots.wait()
    assert train.restore_place(begin(session, tmp_path)[0], state).done == 5
    newest = tmp_path / "1"
    (newest / "digests.json").unlink()
    assert train.restore_place(begin(session, tmp_path)[0], state).done == 3
    assert f"{newest / 'digests.json'}: damaged or not finished" in capsys.readouterr().out
    training.slots.remove()
    assert train.restore_place(begin(session, tmp_path)[0], state).done == 0
