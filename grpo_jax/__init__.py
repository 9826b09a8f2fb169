"""Group-relative policy optimisation for small language models, in JAX and Flax.

Imports point one way: `objective <- policy <- rollout <- trainer <- the doors`
(`train`, `evaluate`, `generate`, `export`, `report`). WORKSPACE.md is the map.

Letters in shapes and in the suffixes of local names:

    N prompts         T tokens of a row        L layers         H query heads
    G group size      P prompt columns         D model width    J key-value heads
    B = N*G rows      C completion columns     F feed-forward   K head size
    S cache slots     V vocabulary                              R = H/J
"""
