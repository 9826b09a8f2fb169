"""Rows of every published form say the same question; holes are named."""

import json

import pytest

from grpo_jax.tasks.questions import read_question

PAGES = [
    ("Rook", "Rook is a town. Its mayor is Bo Lin."),
    ("Mara", "Mara is a river."),
    ("Bo Lin", "Bo Lin was born in Dale."),
]
GOLD = [PAGES[0], PAGES[2]]
SENTENCES = [
    ["Rook is a town.", " Its mayor is Bo Lin."],
    ["Mara is a river."],
    ["Bo Lin was born in Dale."],
]
TITLES = [title for title, _ in PAGES]
BASE = {"question": "Where was the mayor of Rook born?", "answer": "Dale"}
HOTPOT = {
    **BASE,
    "_id": "5a",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Rook", 1], ["Bo Lin", 0], ["Rook", 0]],
    "context": list(map(list, zip(TITLES, SENTENCES, strict=True))),
}
HUB = {
    **{name: value for name, value in HOTPOT.items() if name != "_id"},
    "id": "5a",
    "supporting_facts": {"title": ["Rook", "Bo Lin", "Rook"], "sent_id": [1, 0, 0]},
    "context": {"title": TITLES, "sentences": SENTENCES},
}
HUB_2WIKI = {
    **HUB,
    "supporting_facts": json.dumps(HOTPOT["supporting_facts"]),
    "context": json.dumps(HOTPOT["context"]),
}
MUSIQUE = {
    "id": "2hop__1_2",
    "question": BASE["question"],
    "answer": "Dale",
    "answer_aliases": ["Dale Town", "Dale"],
    "answerable": True,
    "paragraphs": [
        {"idx": at, "title": title, "paragraph_text": text, "is_supporting": at != 1}
        for at, (title, text) in enumerate(PAGES)
    ],
    "question_decomposition": [
        {"question": "mayor of Rook", "answer": "Bo Lin", "paragraph_support_idx": 2},
        {"question": "#1 born", "answer": "Dale", "paragraph_support_idx": 0},
    ],
}
NORMALISED = {
    **BASE,
    "supporting_titles": ["Rook", "Bo Lin"],
    "paragraphs": [
        {"title": title, "text": text, "is_supporting": at != 1}
        for at, (title, text) in enumerate(PAGES)
    ],
}
DAVID = {
    "_id": "f6",
    "level": "easy",
    "prompt": [
        {"role": "system", "content": "Help."},
        {
            "role": "user",
            "content": f"Search.\nNow answer the question below:\n{BASE['question']}\n",
        },
    ],
    "reward_model": {"ground_truth": "Dale<ans_split>Dale Town", "style": "bridge"},
    "supporting_facts": {"title": ["Rook", "Bo Lin", "Bo Lin"], "sent_id": [0, 0, 1]},
    "extra_info": {"index": 0, "split": "train"},
}
SYNTHETIC = {
    **BASE,
    "id": "syn_1",
    "evidence_documents": [
        {"id": "1", "title": title, "content": text} for title, text in GOLD
    ],
}


@pytest.mark.parametrize("row", [HOTPOT, HUB, HUB_2WIKI, NORMALISED])
def test_rows_with_context(row):
    question = read_question("f", row)
    assert question.text == BASE["question"] and question.golds == ("Dale",)
    assert question.gold == tuple(GOLD) and question.hops == 2
    assert [(title, text) for title, text, _ in question.paragraphs] == PAGES
    assert [gold for _, _, gold in question.paragraphs] == [True, False, True]
    if row is not NORMALISED:
        assert (question.id, question.type, question.level) == ("5a", "bridge", "hard")


def test_musique_states_aliases_and_the_order_of_reasoning():
    question = read_question("f", MUSIQUE)
    assert question.golds == ("Dale", "Dale Town")
    assert question.gold == (PAGES[2], PAGES[0]) and question.hops == 2


def test_two_parts_of_one_page_are_two():
    parts = [{**part, "title": "Rook"} for part in MUSIQUE["paragraphs"]]
    question = read_question("f", {**MUSIQUE, "paragraphs": parts})
    assert [title for title, _ in question.gold] == ["Rook", "Rook"]
    assert question.hops == 2


def test_paragraphs_without_supporting_ones():
    pages = [{"title": title, "text": text} for title, text in PAGES]
    question = read_question("f", {**BASE, "paragraphs": pages})
    assert (question.gold, question.hops, len(question.paragraphs)) == ((), 0, 3)


def test_david():
    question = read_question("f", DAVID)
    assert question.text == BASE["question"] and question.id == "f6"
    assert question.golds == ("Dale", "Dale Town")
    assert question.gold == (("Rook", ""), ("Bo Lin", ""))
    below = "Do.\nanswer the question below:\nIn Rook:\nwho is it?"
    row = {**DAVID, "prompt": [{"role": "user", "content": below}]}
    assert read_question("f", row).text == "In Rook:\nwho is it?"
    # An evaluation row: no titles, hops and type in other places, several answers.
    row = {name: DAVID[name] for name in ("prompt", "reward_model")}
    row |= {"reward_model": {"ground_truth": ["a", "b"]}, "hop_nums": 3}
    row["prompt"] = [{"role": "user", "content": "Do.\n\nWho is it?"}]
    question = read_question("f", row)
    assert (question.text, question.golds, question.hops) == (
        "Who is it?",
        ("a", "b"),
        3,
    )


def test_synthetic():
    question = read_question("f", SYNTHETIC)
    assert question.gold == tuple(GOLD) and question.hops == 2
    assert len(question.paragraphs) == 2


@pytest.mark.parametrize(
    ("row", "golds"),
    [
        (BASE, ("Dale",)),
        ({"Question": BASE["question"], "Answer": "Dale"}, ("Dale",)),
        ({**BASE, "answer": ["Dale", "Rook", "Dale"]}, ("Dale", "Rook")),
        ({"question": BASE["question"], "golden_answers": ["a", "b"]}, ("a", "b")),
        ({**BASE, "answer": 1945}, ("1945",)),
    ],
)
def test_a_question_and_an_answer(row, golds):
    question = read_question("f", row)
    assert (question.text, question.golds) == (BASE["question"], golds)
    assert (question.gold, question.hops) == ((), 0)


def test_titles_alone():
    row = {**BASE, "supporting_facts": HUB["supporting_facts"]}
    assert read_question("f", row).gold == (("Rook", ""), ("Bo Lin", ""))


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"question": "q"},
        {"answer": "a"},
        {"text": "q", "label": 1},
        {**BASE, "answer": None},
        {**BASE, "answer": []},
        {**BASE, "answer": " "},
        {**BASE, "question": " "},
        {**HOTPOT, "context": [["Rook"]]},
        {**HUB, "context": {"title": ["Rook"], "sentences": []}},
        {**MUSIQUE, "answerable": False},
        {**MUSIQUE, "paragraphs": [{"title": "Rook"}]},
        {**MUSIQUE, "paragraphs": MUSIQUE["paragraphs"][:1]},
        {**DAVID, "prompt": ["q"]},
        {**HUB_2WIKI, "context": "not JSON"},
    ],
)
def test_unknown_rows_are_refused_by_name(row):
    with pytest.raises(ValueError, match="^file, row 3 "):
        read_question("file, row 3", row)
