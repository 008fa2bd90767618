"""The stages by name, in the order in which a run goes through them, and where their files are.

It stands here once more so that a report needs none of the recipes and none of their settings (`registry.STAGES`, to
which a test holds it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Stage → the key of `paths` for the folder of its files; empty for one whose files a report does not look for.
STAGE_OUTPUTS: Final[Mapping[str, str]] = {
    "cleanup": "",
    "export": "",
    "metadata_extraction": "",
    "geocode_sweep": "",
    "llm_image_analysis": "",
    "preprocessing": "preprocessed",
    "watermarking": "watermarked_final",
    "lora_processing": "lora_processed",
    "post_lora_watermarking": "watermarked_final",
    "s3_deployment": "",
}
