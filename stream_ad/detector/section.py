"""What groups of settings have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stream_ad.detector.alarms.quantities import LONGEST_S

MOST = 2**31 - 1
"""Upper bound of settings that are only counted and compared, and reserve no memory."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Seconds = Annotated[float, Field(ge=0.001, le=LONGEST_S)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
