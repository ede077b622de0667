"""Whether what AND joins painted the whole picture each, or parts of it that another extension chose."""

from __future__ import annotations

from torch import Tensor

REGIONS = (
    "Another extension used what the model answered to each prompt that AND joins in a part of the picture alone (Latent "
    "Couple and Regional Prompter's Latent mode do). The maps show where each word's prompt was attended to in the whole "
    "picture, also where its answer was thrown away."
)


class JoinedAnswers:
    """Watches the model's answers between the host's first callback and the end of a step; the device is not waited for."""

    def __init__(self) -> None:
        self._answers: tuple[Tensor, Tensor] | None = None
        self._changed: Tensor | None = None

    def begin(self, answers: Tensor) -> None:
        """What the model answered to each row, `[rows, c, …]`: what other extensions change, they change in place."""
        self._answers = answers, answers.detach().clone()

    def end(self) -> None:
        """The step is over."""
        if self._answers is None:
            return
        (now, before), self._answers = self._answers, None
        self.compare(now, before)

    def compare(self, now: Tensor, before: Tensor) -> None:
        """What the sampler gets, and what the model answered; of another number of rows nobody can say what became of them."""
        if now.shape != before.shape:
            return
        changed = ((now != before) & ~before.isnan()).any()  # a black picture's are no numbers, which equal nothing
        self._changed = changed if self._changed is None else self._changed.to(changed.device) | changed

    def notes(self) -> list[str]:
        """The sentence, where any answer was changed."""
        return [REGIONS] if self._changed is not None and bool(self._changed) else []
