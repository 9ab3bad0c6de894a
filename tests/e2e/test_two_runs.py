"""Two `medvec run` at once on one home."""

from __future__ import annotations

from command import DATASET, Home, Undisturbed, finished, index_state, lake_state, servers


def test_two_runs_at_once_end_and_the_next_one_converges(undisturbed: Undisturbed, fresh: Home) -> None:
    both = [fresh.start("run", "--dataset", DATASET, "--json") for _ in range(2)]
    for result in [finished(process) for process in both]:
        # One may lose a race for a commit; it then says which, and what to do.
        assert result.code in (0, 1), result.stderr
        assert (result.code == 0) == (result.stderr == "")
        for sentence in result.json.get("failures", []):
            assert "[commit_conflict]" in sentence and "What to do:" in sentence, sentence
    assert servers(fresh) == []

    fresh.fine("run", "--dataset", DATASET)
    assert fresh.fine("verify", "--dataset", DATASET)["ok"]
    assert lake_state(fresh) == undisturbed.lake
    assert index_state(fresh) == undisturbed.index
