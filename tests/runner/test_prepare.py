"""What comes before a run, in which order."""

from fairgrape_jax import parallel, storage
from fairgrape_jax.runner import preflight
from fairgrape_jax.runner.prepare import prepare
from tests.helpers.experiments import TINY


def test_all_processes_look_at_the_directory_before_the_first_one_writes(tmp_path, monkeypatch):
    """Else another one, which is later, takes what it finds for somebody else's files."""
    order = []

    def note(module, name):
        function = getattr(module, name)

        def noted(*args, **options):
            order.append(name)
            return function(*args, **options)

        monkeypatch.setattr(module, name, noted)

    note(preflight, "check_directory")
    note(preflight, "check_registered")
    note(parallel, "broadcast_from_process_0")
    note(storage, "check_writable")
    prepare(TINY, tmp_path / "run")
    looked, wrote = order.index("check_registered"), order.index("check_writable")
    assert order.index("check_directory") < looked < wrote
    assert "broadcast_from_process_0" in order[looked:wrote]
