"""One of two processes that roll out together: `python -m tests.rollout.two_processes`.

Arguments: the address of the first process, and the number of this one. Prints what was
written. Only the first process has a tool that works.
"""

import json
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")


def main(address: str, number: int, fails: bool):
    jax.distributed.initialize(address, 2, number)
    from grpo_jax.policy import sharding
    from tests import helpers
    from tests.rollout import test_episodes

    class Broken(test_episodes.Echo):
        def step(self, rows, queries):
            raise OSError("this tool is broken")

    working = number == 0 and not fails
    mesh = sharding.make_mesh(2, 2, 1)
    with jax.set_mesh(mesh):
        environment, rows, talk, session = test_episodes.talk_of(
            helpers.spread(helpers.model_of(), mesh),
            test_episodes.Echo() if working else Broken(),
            mesh=mesh,
            max_calls=3,
        )
    written = [[turn.text for turn in talk.turns(row)] for row in rows]
    ids = helpers.texts_of(session.trajectories(rows))
    print(json.dumps([number, len(environment.asked), written, ids]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["fails"])
