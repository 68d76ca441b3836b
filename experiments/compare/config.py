"""The options of a comparison, and which values they may have."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Suppress

from experiments import options
from experiments.command_line import check_least, flag, unset
from experiments.compare.settings import ALL, DEMO, EVERY, SETTINGS, Setting
from experiments.interventions import EARLIER, INTERVENTIONS

RESULTS = Path("experiments", "results")
# Options that go with --settings: those of tuned strengths, and those of any comparison.
TUNED = ("minutes", "results")
ANY = ("settings", "methods", "data_dir", "download")


@dataclass(frozen=True)
class Config(options.Config):
    """What to compare, how, and where the results go.

    Attributes:
        settings: Settings to tune and to compare in, one after another, of those above;
            all: those that fit the device. They fix how networks are trained.
        methods: What to compare, of the methods above.
        minutes: Time after which nothing new is trained, with --settings.
        results: Folder of the results, with --settings.
        validation: Fraction of the training images that is held out, and scored instead
            of the test images: for choosing options.
        seeds: Number of seeds: 0, 1 and so on. A seed fixes the random weights and the
            order of images.
        strength: Factor of the loss that is added in training, of all methods.
        output: Run folder. One that holds part of a run with the same options goes on
            from there.
    """

    settings: Annotated[
        tuple[str, ...] | None, unset("SETTING ...", "none: strengths are fixed")
    ] = None
    methods: Annotated[
        tuple[str, ...] | None,
        tyro.conf.arg(
            metavar="METHOD ...",
            help_behavior_hint=f"(default: {' '.join(DEMO)}; all of a setting)",
        ),
    ] = None
    minutes: Annotated[float | None, unset("FLOAT", "no end")] = None
    results: Path = RESULTS
    validation: float = 0.0
    seeds: int = 5
    strength: Annotated[float | None, unset("FLOAT", "each method's own")] = None
    output: Annotated[Path | None, unset("PATH", "runs/<dataset>-<model>-<time>")] = None
    # Of a single run.
    config: Suppress[str] = ""
    method: Suppress[str] = "none"
    image_size: Suppress[int | None] = None
    widths_from: Suppress[Path | None] = None
    workers: Suppress[int] = 0
    checkpoint_minutes: Suppress[float] = 0.0
    distributed: Suppress[bool] = False

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods, by the names that they have now."""
        default = EVERY if self.settings else DEMO
        given = default if self.methods is None else self.methods
        return tuple(EARLIER.get(name, name) for name in given)

    def check(self) -> None:
        """Raises a ValueError that names the first option out of range."""
        check_names("--methods", self.chosen, INTERVENTIONS)
        check_least(self, minutes=0)
        if self.settings is None:
            super().check()
            self.check_unset(TUNED, "expected it with --settings alone")
        else:
            check_names("--settings", self.settings, (ALL, *SETTINGS))
            names = [each.name for each in fields(self)]
            free = (*TUNED, *ANY, "train_size")
            fixed = [name for name in names if name not in free]
            self.check_unset(fixed, "expected none with --settings, which fixes it")
            if self.results == RESULTS:
                self.check_unset(
                    ["train_size"], "expected --results with it and --settings"
                )

    def tuned(self) -> dict[str, Setting]:
        """All settings with tuned strengths, of fewer images if the options say so."""
        if self.train_size is None:
            return dict(SETTINGS)
        return {
            name: replace(x, config=replace(x.config, train_size=self.train_size))
            for name, x in SETTINGS.items()
        }

    def check_unset(self, names: Collection[str], expected: str) -> None:
        """Raises a ValueError that names the first option that is given in vain."""
        for name in names:
            if (value := getattr(self, name)) != getattr(Config, name):
                raise ValueError(f"{flag(name)} is {value}; {expected}")

    def methods_option(self) -> tuple[str, tuple[str, ...]]:
        """The option that names methods, and what it names."""
        return "--methods", self.chosen

    def options(self) -> dict[str, Any]:
        """All that the results of fixed strengths depend on."""
        found = {**super().options(), "methods": self.chosen}
        return {name: x for name, x in found.items() if name not in ("settings", *TUNED)}

    def setting(self) -> Setting:
        """The comparison with fixed strengths that the options describe."""
        return Setting(
            f"{self.dataset}, {self.model}",
            self,
            methods=self.chosen,
            tuned=0,
            seeds=self.seeds,
            first_seed=0,
            measured=256,
        )


def check_names(option: str, chosen: tuple[str, ...], known: Collection[str]) -> None:
    """Raises a ValueError that names the first that is unknown."""
    for name in chosen:
        if name not in known:
            (closest,) = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise ValueError(
                f"{option} is {name!r}; expected names that --help lists, such as "
                f"{closest}"
            )
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{option} is {' '.join(chosen)!r}; expected names, each once")
