"""The report of a training: everything that it should say, in a page that loads nothing."""

import html
import re
from functools import partial

import numpy as np
import pytest
from google.protobuf import json_format

from convserve_bundle.contract import MANIFEST_KEY
from convserve_trainer.datasets.pictures import ArrayPictures, Data
from convserve_trainer.evaluation import judgement, mistakes, predict
from convserve_trainer.evaluation.judged import Judged
from convserve_trainer.evaluation.traits import Watch
from convserve_trainer.nets import keras_backend
from convserve_trainer.recipes import recipe_files
from convserve_trainer.report import machine, page
from convserve_trainer.report.page import Invocation, TrainingOutcome
from convserve_trainer.runs.history import Epoch, History
from convserve_trainer.seeds import Result
from tests.bundles import CLASSES, digit_of, manifest, model
from tests.trainer.lecture.test_lecture import Page

WRITTEN = recipe_files.find("best", "digits")
TOTAL, WRONG = 40, 3


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> TrainingOutcome:
    """What came of a training: the first three of the held-out pictures are mistaken for ones."""
    monkeypatch.setattr(machine, "described", lambda: "a machine <1>")
    monkeypatch.setattr(keras_backend, "described", lambda: "a backend")
    labels = np.arange(TOTAL) % CLASSES
    pixels = np.stack([digit_of(int(label)) for label in labels])
    pixels[[0, 10, 20]] = digit_of(1)
    held_out = ArrayPictures(pixels, labels)
    stated = manifest()
    stated.metrics.update(
        {"accuracy": 0.925, "correct": 37, "total": 40, "loss": 0.25, "keras_correct": 37}
    )
    stated.training.versions["keras"] = "9.9.9"
    stated.training.parity_max_abs, stated.training.parity_bound = 3e-7, 1e-5
    stated.training.git_commit = "c0ffee"
    stated.parameters = 7_840
    stated.created.FromJsonString("2026-11-26T03:04:05Z")
    content = model({MANIFEST_KEY: json_format.MessageToJson(stated)}).SerializeToString()
    train = ArrayPictures(pixels[1:10], labels[1:10])
    data = Data("digits", stated.labels, stated.input, train, held_out, "d1935", validation=train)
    epochs = [
        Epoch(number, 0.5 / number, 0.8, 0.6 / number, 0.7 + number / 100, 2.5, 0.1, 1e-3)
        for number in (1, 2)
    ]
    recipe = WRITTEN.override({"learning_rate": 0.01, "net.0.filters": 16})
    watch = Watch(partial(predict.by_onnxruntime, predict.session(content)))
    answers = predict.answer(watch, held_out)
    judged = judgement.judge(list(stated.labels), answers, watch.traits(held_out))
    examples = mistakes.examples(answers, held_out, judged.confusions)
    results = [Result(1, 0.925, 37, 0.25, 2, 5.0), Result(2, 0.95, 38, 0.125, 2, 6.0)]
    found = Judged(judged, examples)
    return TrainingOutcome(content, recipe, data, History(epochs), results, 61.6, found)


def test_report_says_all_that_came_of_a_training(outcome: TrainingOutcome) -> None:
    asked = Invocation(["convserve-train", "fit", "digits", "--data", "my data"], WRITTEN)
    content = page.make_report(outcome, asked)(7).decode()
    read = Page(content)
    assert read.wrong == []
    assert all(address.startswith("data:image/") for address in read.loaded)
    assert not re.search(r"@import|url\(|<script|<link|https?://(?!www.w3.org)", content)
    assert set(read.targets) == {f"#{name}" for name in read.ids}
    assert "prefers-color-scheme: dark" in content

    confusion, wrong, history = read.images
    assert wrong == "0 taken for 1: 3 pictures"
    assert confusion == ("Confusion matrix of 10 classes: most often, 3 times, 0 is mistaken for 1")
    assert history.endswith(
        "the lowest validation loss, 0.3000 at an accuracy of 0.7200, after epoch 2"
    )
    text = html.unescape(re.sub(r"<[^>]+>", "|", content))
    for phrase in (
        "92.50% of 40 held-out digits right; recipe best, seed 1.",
        "37 of 40 are right, 92.50% (95 % interval 80.14% to 97.42%, by Wilson's method), at a "
        "loss of 0.2500",
        "Guessing would have 10.00% right, one of 10; the commonest class for every picture "
        "10.00%.",
        "The recipe as it is written has an accuracy floor of 99.50%. This net misses it, which "
        "was not asked of it, because the data or other settings are not the recipe's.",
        "mnist, version 7|",
        "|version||7 of mnist|",
        "Keras has 37 right. The largest difference between a probability of the two is 3.0e-07; "
        "in float32 up to 1e-05 is allowed.",
        "|0||4||1.0000||0.2500||0.4000||0.6250||1 (3)|",
        "|1||4||0.5714||1.0000||0.7273||",
        "|9||4||1.0000||1.0000||1.0000||1.0000||none|",
        "|9||0.5101 to 1.0000||0.5101 to 1.0000||",
        "|0||1||3||75.00%|",
        f"2 of {WRITTEN.epochs} epochs in 5.0 s; 10.0% of the time",
        "2 seeds were trained: mean 0.9375, standard deviation 0.0177, 0.9250 to 0.9500.",
        "|2||0.9500||38||0.1250||2||6.0|",
        "learning_rate = 0.01  # the recipe says 0.003",
        "|all||9||9||40|",
        "SHA-256 of all: |d1935|",
        "|parameters||7,840|",
        "|operations a picture||15,680|",
        "|command||convserve-train fit digits --data 'my data'|",
        "|machine||a machine <1>|",
        "|backend||a backend|",
        "keras 9.9.9",
        "|commit||c0ffee|",
        "|made||2026-11-26 03:04 UTC, in 62 s|",
    ):
        assert phrase in text, phrase


def test_a_single_seed_and_no_command_leave_their_parts_out(outcome: TrainingOutcome) -> None:
    alone = TrainingOutcome(**{**vars(outcome), "results": outcome.results[:1]})
    content = page.make_report(alone, None)(7).decode()
    assert "seeds were trained" not in content
    assert "<dt>command</dt>" not in content
    assert "the recipe says" not in content


def test_machine_is_described_with_its_cpus() -> None:
    assert re.fullmatch(r".+, \d+ CPUs; (no GPU|GPU .+); \w+ .+", machine.described())
