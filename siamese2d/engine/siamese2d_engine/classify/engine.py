"""Joint alignment and classification: runs the schedule's passes and keeps the state between them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from siamese2d_engine.batches import Room
from siamese2d_engine.classify.averages import Spectra, Sums, estimate_spectra, wiener
from siamese2d_engine.classify.balance import balanced_offsets
from siamese2d_engine.classify.cells import ShiftGrid, shift_grid
from siamese2d_engine.classify.passes import Averages, PassSettings, PolarImages, Resolution, align, sum_poses
from siamese2d_engine.classify.prepare import resolution
from siamese2d_engine.classify.regroup import Alike, grouping_curve, groups_of, joined, joined_scores, tree_of
from siamese2d_engine.classify.schedule import SHIFT_CYCLES, WIDE_CYCLES, Schedule, Search, Step, is_certain, is_sure
from siamese2d_engine.classify.search import Poses
from siamese2d_engine.classify.shifts import centred, likely_shifts
from siamese2d_engine.classify.split import divide_classes, divisions, replace_classes, unfold_classes
from siamese2d_engine.classify.truncation import power_by_order, sufficient_harmonics, truncated
from siamese2d_engine.devices import seeded_generator
from siamese2d_engine.progress import work

# Fraction of the classes that one step may replace.
REPLACED = 0.15
# Rings that tell a class's variations apart: beyond them, noise prevails before the classes are complete.
DIVISION_RINGS = 8
# Rings on which classes are found alike.
GROUPING_RINGS = 8
# How softly candidates are ranked: a class that is this much less likely counts a factor e less.
CANDIDATE_SOFTNESS = 4.0
# Strength of the balance of class sizes, as a fraction of the mean log-likelihood: what tells classes apart
# grows with it.
BALANCE = 0.08
# Log-likelihood that an image may lose with the harmonics that a comparison leaves out.
NEGLECTED = 0.01
# Radius of the search around the present shift, in steps.
NEAR = 1.0
# Poses kept for each image.
BEST = 4


@dataclass
class State:
    """Everything that a pass needs from the one before.

    Attributes
    ----------
    step
        Passes done.
    poses
        Of ``n`` images.
    averages
        ``(count, rings, K)`` at `at`.
    denominators
        What the sums were divided by to make the averages, ``(K, rings)``.
    at
        Resolution of the averages.
    spectra
        Noise and signal on the averages' rings.
    offsets
        Of the classes, ``(K,)``.
    scores
        Of each image in each class, ``(n, K)``.
    history
        One record for each pass.
    grouping
        What each number of classes would cost, see `regroup.grouping_curve`; empty where no fine classes were made.
    """

    step: int
    poses: Poses
    averages: Tensor
    denominators: Tensor
    at: Resolution
    spectra: Spectra
    offsets: Tensor
    scores: Tensor
    history: list[dict] = field(default_factory=list)
    grouping: list[dict] = field(default_factory=list)

    @property
    def classes(self) -> int:
        return self.averages.shape[2]

    @property
    def confidence(self) -> Tensor:
        """Probability of each image's class among those it was compared with last, ``(n,)``."""
        posterior = torch.softmax(self.scores.double() + self.offsets.cpu(), dim=1)
        return posterior.gather(1, self.poses.classes[:, :1])[:, 0]


class Classifier:
    """Aligns and classifies images.

    Parameters
    ----------
    images
        ``n`` of them.
    schedule
        The passes.
    reach
        Largest radius of the search for shifts around the box's centre, pixels; less is searched where images are found
        to lie less far out.
    seed
        Of the random start and of directions in which to begin the search for variations.
    device
        Where to compute.
    """

    def __init__(
        self, images: PolarImages, schedule: Schedule, reach: float, seed: int, device: torch.device
    ):
        self.images, self.schedule, self.reach = images, schedule, reach
        self.seed, self.device = seed, device
        self.room = Room.on(device)
        self.power = images.power.sum(0).to(device)

    def start(self, labels: Tensor | None = None) -> State:
        """Begin with classes of images turned at random.

        Parameters
        ----------
        labels
            Class of each image ``(n,)``; random if None.
        """
        n, classes = len(self.images), self.schedule.first[0].classes
        generator = seeded_generator(self.seed, 0)
        if labels is None:
            labels = torch.randperm(n, generator=generator) % classes
        poses = Poses.empty(n, 1).relabelled(labels)
        poses.psi[:, 0] = 2 * torch.pi * torch.rand(n, generator=generator)
        return self._from_poses(0, poses, classes, resolution(self.images, self.schedule.first[0].rings), None, [])

    def run(self, state: State, after_pass: Callable[[State], str | None]) -> State:
        """Do the passes that are left; `after_pass` is called with the state after each, and may say how it is."""
        steps = self.schedule.steps(state.history)
        with work("classify", len(steps), "pass", done=state.step) as meter:
            while state.step < len(steps):
                state = self._pass(state, steps)
                steps = self.schedule.steps(state.history)
                meter.total = len(steps)
                meter.advance(detail=after_pass(state))
        return state

    def _pass(self, state: State, steps: list[Step]) -> State:
        step = steps[state.step]
        before = state.poses.classes[:, 0]
        state = self._reshaped(state, steps[max(0, state.step - 1)], step, steps[state.step + 1:])
        at = self._resolution(step, state.history[:-1])
        wide = step.search is Search.ALL or (step.search is Search.UNCERTAIN and not is_sure(state.history))
        if wide or at != state.at:
            poses = centred(state.poses, state.classes) if wide else state.poses
            state = self._from_poses(state.step, poses, state.classes, at, state.spectra, state.history, state)
        following = steps[min(state.step + 1, len(steps) - 1)]
        # More rings need no closer shifts to find the right place.
        cycles, rings = (WIDE_CYCLES, step.rings) if wide else (SHIFT_CYCLES, at.rings)
        unit = self.images.grid.shift_step(cycles, rings) / step.fineness
        search, averages = self._truncated(state)
        settings = PassSettings(
            search=search, sum=self._resolution(following, state.history),
            shifts=self._all_shifts(state, unit) if wide else shift_grid(NEAR * unit, unit),
            best=BEST, mirror=step.mirror, room=self.room,
        )
        n = len(self.images)
        centres = torch.zeros(n, 2) if wide else state.poses.shifts[:, 0]
        references = Averages(averages, state.denominators, state.spectra.noise, state.offsets)
        # Candidates are those of whole classes: an image that went astray would not find out of its class.
        candidates = self._candidates(state, 0 if wide else step.candidates)
        found = align(self.images, centres, state.poses, references, candidates, settings)
        spectra, averages, denominators = self._averages(found.sums, settings.sum, state.spectra)
        likelihood = float(found.poses.log_likelihood.double().mean())
        offsets = state.offsets
        if step.candidates != 1:
            offsets = balanced_offsets(found.scores, offsets.cpu(), BALANCE * max(likelihood, 0)).to(self.device)
        record = {
            "pass": state.step + 1, "classes": state.classes, "rings": at.rings,
            "frequency": float(self.images.grid.radii[at.rings - 1]),
            "log_likelihood": likelihood,
            "confidence": float(found.poses.confidence.mean()),
            "changed": float((found.poses.classes[:, 0] != before).float().mean()),
        }
        # A pass over the own class alone compares nothing: the last comparison stands.
        scores = state.scores if step.candidates == 1 else found.scores
        return State(state.step + 1, found.poses, averages, denominators, settings.sum, spectra, offsets, scores,
                     [*state.history, record], state.grouping)

    def _all_shifts(self, state: State, unit: float) -> ShiftGrid:
        """All that are within reach; how far out images lie is known after the first pass."""
        return likely_shifts(state.poses, self.reach, unit) if state.step else shift_grid(self.reach, unit)

    def _truncated(self, state: State) -> tuple[Resolution, Tensor]:
        """The averages with the harmonics that matter, and the resolution of a search with these."""
        at, half_angles = state.at, self.images.grid.half_angles
        weights = self.images.ctf2[:, :at.rings].mean(0) * self.images.pixels[:at.rings]
        orders = at.harmonics(self.images.grid, self.device).orders
        power = power_by_order(state.averages, orders, weights.to(self.device) / state.spectra.noise)
        # Half of its power is what an average explains of an image.
        count = sufficient_harmonics(power, 2 * NEGLECTED * state.classes)
        return truncated(at, half_angles, count), state.averages[orders < count]

    def _resolution(self, step: Step, history: list[dict]) -> Resolution:
        """Of a pass, by the passes up to the last but one before it: the last one sums what is then compared with."""
        return resolution(self.images, step.rings if is_certain(history) else step.doubtful_rings)

    def _reshaped(self, state: State, previous: Step, step: Step, later: list[Step]) -> State:
        """Divide, group or replace classes, where the step asks for it."""
        if previous.mirror and not step.mirror:
            poses, origins = unfold_classes(state.poses, state.classes, step.classes)
            return self._renumbered(state, state.at, poses, origins)
        grows = step.classes > state.classes
        if step.classes < state.classes:
            numbers = [step.classes, *(other.classes for other in later)]
            return self._grouped(state, step, final=numbers == sorted(numbers))
        if not grows and not step.replace:
            return state
        at = resolution(self.images, min(step.rings, DIVISION_RINGS))
        labels = state.poses.classes[:, 0]
        poses = state.poses.relabelled(labels)
        plain = self._from_poses(state.step, poses, state.classes, at, state.spectra, state.history, state)
        found = divisions(self.images, poses, plain.averages, plain.spectra, at,
                          seeded_generator(self.seed, state.step + 1))
        if grows:
            labels, origins = divide_classes(labels, found, step.classes)
        else:
            labels, origins = replace_classes(labels, state.scores, found, REPLACED)
        return self._renumbered(state, at, poses.relabelled(labels), origins)

    def _grouped(self, state: State, step: Step, final: bool) -> State:
        """Join classes that look alike, until there are as many as the step wants; the curve is that of the `final` ones."""
        at = resolution(self.images, min(step.rings, GROUPING_RINGS))
        fine = self._from_poses(state.step, state.poses, state.classes, at, state.spectra, state.history, state)
        sizes = torch.bincount(state.poses.classes[:, 0], minlength=state.classes)
        alike = Alike(fine.averages, fine.spectra, self.images, at, step.mirror, self.room)
        losses = alike.losses(sizes)
        tree = tree_of(losses)
        groups, frames = alike.settled(groups_of(tree, step.classes), sizes)
        poses = joined(state.poses, groups, frames)
        scores = joined_scores(state.scores + state.offsets.cpu(), groups)
        old = replace(state, scores=scores, offsets=torch.zeros(scores.shape[1], device=self.device),
                      grouping=grouping_curve(tree, losses, len(self.images)) if final else state.grouping)
        return self._from_poses(state.step, poses, scores.shape[1], state.at, state.spectra, state.history, old)

    def _renumbered(self, state: State, at: Resolution, poses: Poses, origins: Tensor) -> State:
        """A state with other classes, which inherit the scores and offsets of those they come from."""
        old = replace(state, scores=state.scores[:, origins], offsets=state.offsets[origins.to(self.device)])
        return self._from_poses(state.step, poses, len(origins), at, state.spectra, state.history, old)

    def _from_poses(
        self, step: int, poses: Poses, classes: int, at: Resolution, spectra: Spectra | None, history: list[dict],
        old: State | None = None,
    ) -> State:
        """A state whose averages are summed from poses; offsets, scores and grouping are kept from `old` if given."""
        sums = sum_poses(self.images, poses, classes, at, self.room, self.device)
        spectra, averages, denominators = self._averages(sums, at, spectra)
        offsets = torch.zeros(classes, device=self.device) if old is None else old.offsets
        scores = torch.zeros(len(self.images), classes) if old is None else old.scores
        grouping = [] if old is None else old.grouping
        return State(step, poses, averages, denominators, at, spectra, offsets, scores, history, grouping)

    def _averages(self, sums: Sums, at: Resolution, spectra: Spectra | None) -> tuple[Spectra, Tensor, Tensor]:
        """Spectra, and the averages and denominators that go with them."""
        harmonics = at.harmonics(self.images.grid, self.device)
        power = self.power[:at.rings]
        if spectra is None or len(spectra.noise) < at.rings:
            nothing = torch.zeros(at.count, at.rings, sums.classes, dtype=torch.complex64, device=self.device)
            spectra = estimate_spectra(sums, nothing, power, harmonics)
        spectra = spectra.first(at.rings)
        for _ in range(2):
            averages, _ = wiener(sums, spectra)
            spectra = estimate_spectra(sums, averages, power, harmonics)
        return spectra, *wiener(sums, spectra)

    def _candidates(self, state: State, most: int) -> list[tuple[Tensor, Tensor]]:
        """Who is compared with whom: the images of a class with the classes that these images like best."""
        classes = state.classes
        if most == 0 or most >= classes:
            return [(torch.arange(len(self.images)), torch.arange(classes))]
        labels = state.poses.classes[:, 0]
        pairs = []
        for number in range(classes):
            members = (labels == number).nonzero()[:, 0]
            if most == 1:
                pairs.append((members, torch.tensor([number])))
            elif len(members):
                scores = state.scores[members] + state.offsets.cpu()
                liking = torch.exp((scores - scores.amax(1, keepdim=True)) / CANDIDATE_SOFTNESS).sum(0)
                liking[number] = torch.inf
                pairs.append((members, liking.topk(most).indices.sort().values))
        return [pair for pair in pairs if len(pair[0])]
