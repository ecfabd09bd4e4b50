"""The same image seen several ways, and one answer from all of them: test-time augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.special import log_softmax, logsumexp

from compress.runtime.session import Images, Inside, Logits, Session, answers

Views = Literal["none", "flip", "crops"]
"""As it is; also mirrored; ten crops: the middle and four corners, a sixteenth of the side apart, each also mirrored."""
VIEWS: tuple[Views, ...] = get_args(Views)


def views(images: Images, kind: Views) -> list[Images]:
    """What a network is shown of images (N, C, H, W): one, two or ten batches of the same shape.

    A corner's crop is the image moved; what comes in from outside repeats the edge.
    (Ten crops: Krizhevsky et al., https://papers.nips.cc/paper/4824, section 4.1.)
    """
    seen = [images]
    if kind == "crops":
        height, width = images.shape[2:]
        down, across = max(1, height // 16), max(1, width // 16)
        padded = np.pad(images, ((0, 0), (0, 0), (down, down), (across, across)), mode="edge")
        corners = [(top, left) for top in (0, 2 * down) for left in (0, 2 * across)]
        seen += [padded[:, :, top : top + height, left : left + width] for top, left in corners]
    if kind != "none":
        seen += [each[:, :, :, ::-1] for each in seen]
    return [np.ascontiguousarray(each) for each in seen]


@dataclass(frozen=True)
class Averaged:
    """A session that answers with the mean probabilities of what another one says of several views."""

    session: Session
    kind: Views

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return self.session.input_shape

    def __call__(self, images: Images) -> Logits:
        """The logarithm of the mean over views of softmax(logits)."""
        said = [log_softmax(answers(self.session, view), axis=1) for view in views(images, self.kind)]
        mean: Logits = (logsumexp(said, axis=0) - np.log(len(said))).astype(np.float32)
        return mean

    def outputs(self, names: Sequence[str]) -> Inside:
        """What the network computes inside for the image as it is."""
        return self.session.outputs(names)

    def close(self) -> None:
        """Let go of the network."""
        self.session.close()
