"""Ctrl-C while a step of `train` is computed: it is answered before the step is done."""

import signal

from support.command_lines import run
from support.patience import until
from support.training import write_rows

from mlx_smolvlm.command_line import signals
from mlx_smolvlm.train import training


def test_a_run_says_at_once_that_it_will_stop(monkeypatch, capsys, checkpoint, tmp_path):
    noticed, noticed_by = [], signals.Stopping.noticed
    monkeypatch.setattr(signals, "LIMIT_S", 0.01)
    monkeypatch.setattr(signals.Stopping, "noticed", lambda self: (noticed_by(self), noticed.append(1)))
    gradients_of = training.gradients_of

    def interrupted(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        until(lambda: noticed)
        return gradients_of(*arguments, **options)

    monkeypatch.setattr(training, "gradients_of", interrupted)
    given = ("--model", checkpoint("smolvlm_256m"), "--data", write_rows(tmp_path), "--adapter-out", tmp_path / "out")
    result = run(monkeypatch, capsys, "train", *given, "--rank", 2, "--no-split", "--steps", 3)
    assert result.status == 128 + signal.SIGINT
    said = result.err.index("(stopping after this step, which is saved)")
    assert said < result.err.index("stopped after step 1, which is kept; run the same command with --resume")
    assert (tmp_path / "out.training" / "state.safetensors").is_file()
