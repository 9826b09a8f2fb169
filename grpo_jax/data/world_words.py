"""The words of the built-in world, which its tokenizer has as single tokens.

Names have two words, of which the second brings the blank before it along, so that a
name is the same two tokens wherever it stands. What may stand before a name brings the
blank behind it along: no token begins with a blank where a name begins.
"""

# Kind of entity to its facts, and the kind that each of them names. No fact names an
# entity of its own kind: a document that mentions a name never states the same facts.
FACTS = {
    "person": {"home": "town", "job": "firm"},
    "firm": {"boss": "person", "seat": "town"},
    "town": {"mayor": "person", "guild": "firm"},
}
# Kind of entity to the first and the second words of names.
NAMES = {
    kind: tuple(map(str.split, words))
    for kind, words in {
        "person": (
            "Ada Ben Bo Cal Cy Dee Dot Eli Eve Fay Finn Gil Gus Hal Ida Jo Kit Lea Max "
            "Nan Ola Pat Quin Ray Sue Tom Una Val Wes Xia Yan Zoe",
            "Ash Bell Bray Cobb Cole Dorn Dunn Eads Ford Fox Gant Hill Holt Ives Judd "
            "Kane Kerr Lin Lowe Moss Nash Orr Penn Rudd Shaw Tate Urie Voss Webb York "
            "Zane Gray",
        ),
        "town": (
            "Old New East West High Low Fair Long",
            "Birk Brim Cove Crag Dale Dell Elm Firth Gate Glen Heath Isle Knoll Lund "
            "Mara Mere Ness Peel Pike Quay Ridge Rook Sand Stow Strand Tarn Thorn Vale "
            "Wharf Wick Wold Yew",
        ),
        "firm": (
            "Amp Apex Bolt Brio Coil Core Delta Dyne Echo Ergo Flux Forge Gear Hive "
            "Iris Jade Kilo Luma Mint Nova Onyx Pulse Quark Ruby Sol Tango Ultra Vega "
            "Wave Xeno Yolk Zed",
            "Co Inn Lab Mill Bank Yard Farm Dock",
        ),
    }.items()
}
_FACT_NAMES = [fact for facts in FACTS.values() for fact in facts]
WORDS = (
    *(f"{fact} " for fact in _FACT_NAMES),  # in documents and questions
    *(f" {fact}" for fact in _FACT_NAMES),  # at the end of a query
    *("of ", ": ", "; "),
    *(word for firsts, _ in NAMES.values() for word in firsts),
    *(f" {word}" for _, seconds in NAMES.values() for word in seconds),
)
