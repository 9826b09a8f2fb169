import pytest

from grpo_jax.data import columns


def test_the_best_name_that_is_there_is_found():
    there = ["answer", "problem", "prompt"]
    assert columns.find("x.jsonl", there, columns.QUESTION, "use") == "problem"
    assert columns.names([{"b": 1}, {"a": 1, "b": 2}]) == ["a", "b"]


def test_a_column_that_is_missing_is_an_error_with_those_that_are_there():
    with pytest.raises(ValueError) as error:
        columns.find("x.jsonl", ["text"], ("", "question", "problem"), "set --c to")
    assert str(error.value) == (
        "x.jsonl has no column 'question' or 'problem': set --c to ['text']"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" a ", "a"),
        (3, "3"),
        (204.0, "204"),
        (0.5, "0.5"),
        (None, ""),
        (True, None),
        (["a"], None),
        ("\ud800", None),
    ],
)
def test_what_a_column_says(value, text):
    assert columns.text({"x": value}, "x") == text
    assert columns.text({"x": value}, "") == ""
