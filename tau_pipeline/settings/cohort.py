"""Section ``[group]``: what is done with the scans of a cohort."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tau_pipeline.settings.fields import Checked, documented, require

UnknownManufacturer = Literal["error", "pooled", "exclude"]


Harmonize = Literal["none", "combat"]


@dataclass(frozen=True)
class Group(Checked):
    """What the group level does with the scans of a cohort."""

    min_participants: int = field(
        default=5,
        metadata=documented("A manufacturer with fewer participants is not standardised by itself."),
    )
    unknown_manufacturer: UnknownManufacturer = field(
        default="error",
        metadata=documented(
            "Scans of manufacturers that are unknown or have too few participants: error stops before anything is "
            "written, pooled standardises them by all participants together, exclude leaves them without standardised "
            "values."
        ),
    )
    fit_participants: tuple[str, ...] = field(
        default=(),
        metadata=documented(
            "Participants on whom the standardisation is fitted, with or without sub-: a training split. Default: all."
        ),
    )
    standardization: Path | None = field(
        default=None,
        metadata=documented("standardization.tsv of an earlier fit to use instead of fitting one; of a model, say."),
    )
    diagnosis_column: str | None = field(
        default=None,
        metadata=documented(
            "Column of participants.tsv or sessions.tsv that holds the diagnosis. Default: diagnosis, dx, group or the "
            "like, whichever is there."
        ),
    )
    harmonize: Harmonize = field(
        default="none",
        metadata=documented(
            "Also write regional SUVR harmonised between manufacturers by ComBat, with diagnosis, age and sex kept.",
            source="Johnson, Li and Rabinovic 2007, Biostatistics 8:118; Fortin et al. 2018, NeuroImage 167:104",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_participants > 0, "min_participants", self.min_participants, "a whole number above 0")
        labels = tuple(label.removeprefix("sub-") for label in self.fit_participants)
        object.__setattr__(self, "fit_participants", tuple(dict.fromkeys(labels)))
        both = self.standardization is not None and bool(self.fit_participants)
        require(not both, "fit_participants", list(labels), "none where standardization gives a fit")
