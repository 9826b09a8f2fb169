"""From raw files of problems to a training set: one small judgement after another."""
