"""Examples of bodies for the documentation, each of which can be sent as it is."""

from collections.abc import Mapping
from typing import Any

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQAAAAA3iMLMAAAAEUlEQVR42mP48IEBK+Lnx4oAJ44P8b3mnJQAAAAASUVO"
    "RK5CYII="
)
"""PNG of 16x16 pixels, in base64."""

Examples = Mapping[str, Any]
"""Title -> body."""

_URI = f"data:image/png;base64,{PICTURE}"

ANSWER: Examples = {
    "one task": {
        "image": PICTURE,
        "task": "od",
        "options": {"max_new_tokens": 20},
        "min_score": 0.1,
    },
    "tasks": {
        "image": PICTURE,
        "tasks": [{"task": "ocr"}, {"task": "region_to_category", "region": [0, 0, 8, 8]}],
        "options": {"max_new_tokens": 20},
    },
}
CHAT: Examples = {
    "a picture": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<CAPTION>"},
                    {"type": "image_url", "image_url": {"url": _URI}},
                ],
            }
        ],
        "max_completion_tokens": 20,
    }
}
LABELLING: Examples = {
    "a description": {
        "tasks": [{"data": {"image": _URI}}],
        "label_config": (
            '<View><Image name="i" value="$image"/><TextArea name="t" toName="i"/></View>'
        ),
    }
}
