"""The errors of the core: texts that fit, and faults of ours that the log explains."""

import logging
from urllib.parse import quote

import pytest

from convserve_server.core.errors import InternalFault, fitting, listed


def test_internal_fault_gives_an_id_and_logs_the_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        raise KeyError("secret of the operator")
    except KeyError as error:
        cause = error
    fault = InternalFault("the engine", cause)
    assert str(fault) == f"the engine failed; the server's log has more under id {fault.id}"
    assert fault.metadata == {"fault_id": fault.id}
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"the engine failed, id {fault.id}"
    assert vars(record)["fault_id"] == fault.id
    assert "KeyError: 'secret of the operator'" in caplog.text
    assert "test_errors.py" in caplog.text
    assert fault.__cause__ is cause


def test_internal_faults_have_different_ids() -> None:
    cause = ValueError("broken")
    assert InternalFault("one", cause).id != InternalFault("one", cause).id


def test_text_that_fits_is_as_it_was() -> None:
    text = "no model 'mnïst'; loaded: mnist, photos"
    assert fitting(text) == text
    assert fitting("a" * 1024) == "a" * 1024


def test_text_that_does_not_fit_keeps_its_ends() -> None:
    cut = fitting("begin" + "x" * 5000 + "end")
    assert cut.startswith("beginx")
    assert cut.endswith("xend")
    assert "…" in cut
    assert 900 < len(quote(cut)) <= 1024


def test_names_that_do_not_fit_are_counted() -> None:
    assert listed([]) == "none"
    assert listed(["cats", "mnist"]) == "cats, mnist"
    names = [f"model-of-digits-{number:02}" for number in range(70)]
    text = listed(names)
    shown, more = text.split(", and ")
    count = len(shown.split(", "))
    assert shown == ", ".join(names[:count])
    assert 10 < count < 70
    assert more == f"{70 - count} more"
    # One name that is too long by itself is still shown, without its middle.
    assert listed(["x" * 255]).startswith("xxx")
