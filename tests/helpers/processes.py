"""Real processes of the command on this machine, for tests of runs over many hosts."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import fairgrape_jax

LIMIT = 240  # seconds after which processes that should have ended are killed
EXPERIMENT = '''"""A small experiment; only its last round trains: scores can be compared."""
from fairgrape_jax.config import Execution, Experiment, Scoring, Stage
from fairgrape_jax.data import source

EXPERIMENT = Experiment(
    data=source("synthetic", samples=404, groups=3, classes=3, size=8, noise=0.5, seed=1),
    model="cnn",
    methods=("fairgrape",),
    sparsity=0.75,
    keep_per_round=0.5,
    dense=Stage((2,), (1e-2,), best=True),
    retrain=Stage(),
    final=Stage((1,), (1e-3,)),
    scoring=Scoring(fraction=0.5, micro_batch=16, select="greedy"),
    batch=32,
    execution=Execution(evaluation_batch=7),
)
'''
MAIN = "import sys; from fairgrape_jax.__main__ import main; sys.exit(main())"
OFTEN = "from fairgrape_jax.storage import resumable; resumable.SAVE_EVERY = 0.0"
SAVING = MAIN.replace("; sys.exit", f"; {OFTEN}; sys.exit")  # after every epoch
ROOT = Path(fairgrape_jax.__file__).parents[1]


def free_port():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


class Cluster:
    """Processes on this machine, and what each has said."""

    def __init__(self, folder, commands, devices, environments=None):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "NPROC": "16",  # see conftest.py
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        self.logs = [folder / f"process_{i}.txt" for i in range(len(commands))]
        self.processes = []
        environments = environments or [{}] * len(commands)
        each = zip(self.logs, commands, devices, environments, strict=True)
        for log, command, count, more in each:
            with log.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, *command],
                    cwd=folder,
                    env=environment | {"JAX_NUM_CPU_DEVICES": str(count)} | more,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def wait(self, limit=LIMIT):
        """The exit codes. TimeoutError with what was said, if one is still there at the limit."""
        end = time.monotonic() + limit
        try:
            for process in self.processes:
                process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"still running after {limit} s\n{self.said()}") from None
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        return [process.returncode for process in self.processes]

    def wait_for(self, reached, limit=LIMIT):
        """Until `reached`, a function of what process 0 has said, is true."""
        end = time.monotonic() + limit
        while not reached(self.logs[0].read_text()):
            if time.monotonic() > end or self.processes[0].poll() is not None:
                for process in self.processes:
                    process.kill()
                raise AssertionError(f"never came so far\n{self.said()}")
            time.sleep(0.02)

    def said(self):
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in self.logs)


def start(folder, out, *extra, devices=(2, 2), main=MAIN, second=(), heartbeat=10):
    """`fairgrape run small.py --distributed`, a process for each number of devices.

    second: what the second process alone is given.
    heartbeat: seconds of silence after which a process counts as dead.
    """
    (folder / "small.py").write_text(EXPERIMENT)
    address = f"localhost:{free_port()}"
    command = f"run small.py --out {out} --distributed --heartbeat-timeout {heartbeat}"
    command += f" --coordinator-address {address} --num-processes {len(devices)}"
    commands = [
        ["-c", main, *command.split(), "--process-id", str(i), *extra, *(second if i else ())]
        for i in range(len(devices))
    ]
    return Cluster(folder, commands, devices)
