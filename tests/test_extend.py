"""docs/extend.md: a model, a criterion, a dataset and an optimiser of the user's own."""

import os
import subprocess
import sys
from pathlib import Path

from analysis.collect import read_csv
from tests.conftest import ROOT

MINE = """
import torch
from torch import nn
from lth.training.data import Examples, Source

class Net(nn.Sequential):
    def __init__(self, shape, classes, depth):
        super().__init__(
            nn.Conv2d(shape[0], depth, 3), nn.BatchNorm2d(depth), nn.ReLU(), nn.Flatten(),
            nn.Linear(depth * (shape[1] - 2) * (shape[2] - 2), classes),
        )

def magnitude_increase(evidence):
    return {name: w.abs() - evidence.initial[name].abs() for name, w in evidence.weights.items()}

def letters(root):
    inputs = torch.arange(900 * 36).reshape(900, 1, 6, 6) % 251
    return Source(Examples(inputs, torch.arange(900) % 26), None, 255)
"""


def test_ones_own_model_criterion_dataset_and_optimizer(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    words = [
        "model=own", "model._target_=mine.Net", "+model.depth=3",
        "pruning.criterion=mine.magnitude_increase",
        "dataset.loader._target_=mine.letters", "dataset.shape=[1,6,6]", "dataset.classes=26",
        "dataset.examples=900",
        "optimizer=own", "optimizer._target_=torch.optim.Adagrad", "optimizer.lr=0.1",
        "pruning.levels=2", "pruning.conv_rate=50", "training.iterations=10", "hydra.run.dir=run",
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, str(ROOT / "run.py"), *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    levels = read_csv(tmp_path / "run" / "levels.csv")
    assert levels["density/0.weight"].tolist() == [1.0, 13 / 27, 7 / 27]  # 27, 13.5 go: 14, 6.5: 6
    assert levels["weights_remaining"].iloc[0] == 27 + 48 * 26
