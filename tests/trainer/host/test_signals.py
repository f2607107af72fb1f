import signal

import pytest

from convserve_trainer.host import signals
from convserve_trainer.host.signals import Stopped
from convserve_trainer.main import main

STATUS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def _handlers() -> list[object]:
    return [signal.getsignal(number) for number in signals.SIGNALS]


@pytest.mark.parametrize(("number", "status"), STATUS)
def test_signal_is_raised_and_a_second_one_is_left_to_the_system(
    number: signal.Signals, status: int
) -> None:
    before = _handlers()
    with signals.raised():
        with pytest.raises(Stopped) as caught:
            signal.raise_signal(number)
        assert _handlers() == [signal.SIG_DFL] * 2
    assert caught.value.status == status
    assert _handlers() == before


@pytest.mark.parametrize(("number", "status"), STATUS)
def test_request_is_obeyed_when_it_suits(number: signal.Signals, status: int) -> None:
    with signals.raised(), signals.requested() as request:
        request.obey()
        signal.raise_signal(number)
        assert _handlers() == [signal.SIG_DFL] * 2
        with pytest.raises(Stopped) as caught:
            request.obey()
    assert caught.value.status == status


def test_process_1_ends_itself_at_a_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel drops a signal that process 1 has no handler for.
    ended: list[int] = []
    monkeypatch.setattr("os.getpid", lambda: 1)
    monkeypatch.setattr("os._exit", ended.append)
    with signals.requested():
        signal.raise_signal(signal.SIGTERM)
        assert ended == []
        signal.raise_signal(signal.SIGTERM)
        assert ended == [143]


@pytest.mark.parametrize(("number", "status"), STATUS)
def test_command_without_training_stops_with_one_line(
    number: signal.Signals,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "convserve_trainer.cli.data_options.training", lambda *_: signal.raise_signal(number)
    )
    assert main(["fit", "digits"]) == status
    assert capsys.readouterr().err == "convserve-train: stopped\n"
