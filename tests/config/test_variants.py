"""Variants: a method once more by another name is what a run with those settings alone does."""

import dataclasses
import json
from pathlib import Path

import pytest

from fairgrape_jax import config
from fairgrape_jax.cli.main import COMMANDS, parse
from fairgrape_jax.config import Stage, Variant, protocols
from fairgrape_jax.config.forms import as_word, parse_variants
from fairgrape_jax.data import load
from fairgrape_jax.errors import UsageError
from fairgrape_jax.plan.programs import retraining_program
from fairgrape_jax.remedies import REMEDIES, Remedy
from fairgrape_jax.runner import run as runner
from tests.helpers.experiments import TINY, assert_same, opened, stage_files

ROOT = Path(__file__).parents[2]
VARIANTS = {
    "magnitude-erk": Variant("magnitude", allocation="erk"),
    "magnitude-balanced": Variant("magnitude", remedy=Remedy(balanced=True)),
    "magnitude-kd": Variant("magnitude", allocation={"conv1": 0.5}, remedy=REMEDIES["kd"]),
}
MANY = dataclasses.replace(TINY, methods=("magnitude", *VARIANTS), variants=VARIANTS)
SHORT = dataclasses.replace(MANY, seeds=(0,), densities=(0.5, 0.2), final=Stage())


def alone(experiment, name):
    """The run that has a variant's settings as its own."""
    changed = config.apply_protocol(experiment, name)
    return dataclasses.replace(
        changed, methods=(config.method_of(experiment, name),), variants=None
    )


@pytest.mark.whole
def test_each_variant_is_a_run_of_its_settings_to_the_bit(tmp_path):
    assert runner.run(SHORT, tmp_path / "all")
    together = stage_files(tmp_path / "all")
    for name in SHORT.methods:
        runner.run(alone(SHORT, name), tmp_path / name)
        expected = {
            place.replace("/magnitude/", f"/{name}/"): (record | {"method": name}, state)
            for place, (record, state) in stage_files(tmp_path / name).items()
            if "/magnitude/" in place
        }
        assert len(expected) == 2
        assert_same(expected, {place: together[place] for place in expected})


def test_a_run_with_variants_goes_on_to_the_bit_and_reads_its_experiment_back(tmp_path):
    few = dataclasses.replace(SHORT, methods=("magnitude", "magnitude-balanced"))
    few = dataclasses.replace(few, variants={"magnitude-balanced": VARIANTS["magnitude-balanced"]})
    directory = tmp_path / "run"
    runner.run(few, directory)
    before = stage_files(directory)
    assert config.load(directory / "config.json") == few
    (directory / "seed_0/magnitude-balanced/round_02/metrics.json").unlink()
    runner.run(few, directory)
    assert_same(stage_files(directory), before)
    other = {"magnitude-balanced": Variant("magnitude", remedy=Remedy(dro=0.1))}
    with pytest.raises(UsageError, match=r"belongs to another configuration \(variants"):
        runner.run(dataclasses.replace(few, variants=other), directory)


def test_the_steps_of_a_remedy_are_made_once_and_the_others_are_shared():
    session, _ = opened(MANY, load(MANY.data))
    of = {name: session.of_method(name) for name in MANY.methods}
    assert of["magnitude"].steps is session.steps
    assert of["magnitude-erk"].steps is session.steps
    balanced = of["magnitude-balanced"].steps
    assert balanced is session.of_method("magnitude-balanced").steps
    assert balanced.retrain is not session.steps.retrain
    assert balanced.evaluate is session.steps.evaluate
    scores = Remedy(pw=dataclasses.replace(Remedy().pw, weights=True))
    other = dataclasses.replace(
        session.experiment,
        variants={**VARIANTS, "magnitude-kd": Variant("fairgrape", None, scores)},
    )
    made = dataclasses.replace(session, experiment=other).of_method("magnitude-kd")
    assert made.steps.accumulate is not session.steps.accumulate


def test_every_program_of_a_plan_is_named_by_what_it_retrains():
    named = {name: retraining_program(MANY, name) for name in MANY.methods}
    assert named == {
        "magnitude": "training",
        "magnitude-erk": "training",
        "magnitude-balanced": "training",  # other samples in the same step
        "magnitude-kd": "retraining of magnitude-kd",
    }
    own = dataclasses.replace(MANY, remedy=REMEDIES["kd"])
    assert retraining_program(own, "magnitude") == "retraining"
    assert retraining_program(own, "magnitude-kd") == "retraining"


@pytest.mark.parametrize(
    ("name", "variant", "message"),
    [
        ("dense", Variant("magnitude"), "'dense' cannot be the name of one"),
        ("fairgrape", Variant("magnitude"), "'fairgrape' cannot be the name of one"),
        ("a/b", Variant("magnitude"), "'a/b' cannot be the name of one"),
        ("", Variant("magnitude"), "'' cannot be the name of one"),
        ("Big", Variant("magnitude"), "'Big' cannot be the name of one"),
        ("a" * 65, Variant("magnitude"), "cannot be the name of one"),
        ("other", Variant("magnitude-erk"), "unknown method 'magnitude-erk'"),
        (
            "other",
            Variant("magnitude", {"conv1": 2.0}),
            "variants.other: scoring.allocation: .*2.0",
        ),
        ("other", Variant("magnitude", None, Remedy(dro=-1.0)), "variants.other: remedy.dro: "),
        ("other", Variant("magnitude", "none of them"), "variants.other"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_by_name(name, variant, message):
    methods = ("magnitude", name)
    with pytest.raises(UsageError, match=message):
        config.check(dataclasses.replace(TINY, methods=methods, variants={name: variant}))


def test_a_variant_that_no_method_names_is_checked_and_left_out():
    config.check(dataclasses.replace(TINY, variants=VARIANTS))
    wrong = {"other": Variant("magnitude", remedy=Remedy(dro=-1.0))}
    with pytest.raises(UsageError, match=r"variants\.other: remedy\.dro"):
        config.check(dataclasses.replace(TINY, variants=wrong))


def test_a_variant_of_counted_units_under_one_count_is_refused_before_anything_is_read(tmp_path):
    wrong = dataclasses.replace(
        TINY, methods=("filters",), variants={"filters": Variant("structured", "global")}
    )
    with pytest.raises(UsageError, match="filters: has a count for every layer"):
        runner.run(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_variants_as_json_and_on_the_command_line():
    assert config.from_dict(json.loads(json.dumps(config.to_dict(MANY)))) == MANY
    word = as_word(VARIANTS)
    assert parse_variants(word) == VARIANTS
    assert '"magnitude-balanced": {"method": "magnitude", "remedy": {"balanced": true}}' in word
    words = ["run", str(ROOT / "experiments/demo.py"), "--variants", word, "--methods", *VARIANTS]
    made = parse(COMMANDS, words).values
    assert (made.variants, made.methods) == (VARIANTS, tuple(VARIANTS))
    assert parse_variants("none") is None
    for bad in ("{", "[1]", '{"a": {"allocation": "erk"}}', '{"a": {"method": 1}}'):
        with pytest.raises(ValueError, match=r"."):
            parse_variants(bad)


def test_the_report_says_what_a_variant_changes():
    lines = protocols.describe(MANY)
    assert lines[0].endswith("schedule and training budget but for:")
    assert "- magnitude-erk: magnitude, allocation erk" in lines
    assert "- magnitude-balanced: magnitude, balanced True" in lines
    official = dataclasses.replace(MANY, protocol="official")
    assert config.apply_protocol(official, "magnitude-erk").scoring.allocation == "erk"
    assert config.apply_protocol(official, "magnitude-erk").schedule == "one-shot"
    assert "- magnitude-erk: magnitude, allocation erk" in protocols.describe(official)
