"""Components of the page, made with Gradio; `form` and `showing` have their meaning."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from florence_onnx.errors import FlorenceError
from florence_onnx.page.form import CASCADES, LIMITS, LONGEST, TASKS, questions, read_form, takes
from florence_onnx.page.models import Models
from florence_onnx.page.showing import SCORES, TIMES, Shown, show
from florence_onnx.page.snippets import Source, as_command, as_python
from florence_onnx.tasks import AnswerKind
from florence_onnx.terminal import one_line

EXAMPLES = Path(__file__).parent / "examples"
SCRIPT = Path(__file__).parent / "region.js"

_SECONDS_BETWEEN_CLEANING, _SECONDS_KEPT = 600, 3600
_COPY = "(code) => { navigator.clipboard.writeText(code); }"


def make_page(models: Models, source: Callable[[str], Source]) -> Any:
    """Makes the page, a ``gradio.Blocks``.

    Args:
        models: Models that answer.
        source: Makes the source of the model in a precision, for programs and commands.
    """
    import gradio as gr

    with gr.Blocks(
        title="florence-onnx",
        analytics_enabled=False,
        delete_cache=(_SECONDS_BETWEEN_CLEANING, _SECONDS_KEPT),
    ) as page:
        gr.HTML(f"<h2>florence-onnx: {escape(source(models.precisions[0]).model)}</h2>")
        with gr.Row():
            with gr.Column(scale=2):
                fields, run = _add_fields(models)
            with gr.Column(scale=3):
                outputs = _add_outputs()

    def answer(*values: Any) -> tuple[Any, ...]:
        try:
            form = read_form(dict(zip(fields, values, strict=True)))
            model = models.at(form.precision)
            asked = questions(form, model.policy)
            shown = show(model, asked)
        except FlorenceError as error:
            # Gradio takes the message for HTML.
            raise gr.Error(escape(one_line(error)), duration=None, print_exception=False) from None
        opened = source(form.precision)
        return (
            _gallery(shown),
            *_texts(shown),
            as_python(asked, opened),
            as_command(asked, opened),
        )

    with page:
        # The values are read by `read_form`: Gradio would open the picture by itself.
        run.click(answer, [*fields.values()], outputs, preprocess=False, api_visibility="private")
    page.queue(max_size=LIMITS.queue, default_concurrency_limit=1, api_open=False)
    return page


def _gallery(shown: Shown) -> Any:
    """Shows one drawing large, several drawings side by side, and nothing without a drawing."""
    import gradio as gr

    several = len(shown.drawings) > 1
    return gr.update(
        value=list(shown.drawings),
        columns=2 if several else 1,
        height=360 if several else 540,
        visible=bool(shown.drawings),
    )


def _texts(shown: Shown) -> tuple[Any, ...]:
    records = shown.records[0] if len(shown.records) == 1 else list(shown.records)
    return shown.text, _rows(shown.scores), _rows(shown.times), records


def _rows(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(row) for row in rows]


def _add_fields(models: Models) -> tuple[Mapping[str, Any], Any]:
    """Makes the component of every field of the form, and the button."""
    import gradio as gr

    picture = gr.Image(
        label="Picture",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=340,
        buttons=[],
        elem_id="picture",
    )
    gr.Examples(
        [[str(path)] for path in sorted(EXAMPLES.glob("*.png"))], picture, elem_id="examples"
    )
    tasks = gr.CheckboxGroup([*TASKS, *CASCADES], value=["od"], label="Tasks", elem_id="tasks")
    inputs = _add_inputs()
    tasks.change(
        lambda chosen: [gr.update(visible=visible) for visible in _visible(chosen)],
        tasks,
        [*inputs.values()],
        show_progress="hidden",
        queue=False,
        api_visibility="private",
    )
    run = gr.Button("Run", variant="primary", elem_id="run")
    return {"picture": picture, "tasks": tasks, **inputs, **_add_options(models)}, run


def _visible(tasks: Sequence[str]) -> tuple[bool, bool, bool, bool]:
    text, region, prompt = takes(tasks)
    return text, region, prompt, prompt


def _add_inputs() -> Mapping[str, Any]:
    import gradio as gr

    hidden: dict[str, Any] = {"visible": False, "max_lines": 3}
    return {
        "text": gr.Textbox(
            label="Text",
            info="What to look for",
            max_length=LONGEST,
            elem_id="text",
            **hidden,
        ),
        "region": gr.Textbox(
            label="Region",
            info="Draw a box on the picture, or type x1,y1,x2,y2 in its pixels",
            max_length=LONGEST,
            elem_id="region",
            **hidden,
        ),
        "prompt": gr.Textbox(
            label="Prompt",
            info="The words that a fine-tune was trained on",
            max_length=LONGEST,
            elem_id="prompt",
            **hidden,
        ),
        "answer": gr.Dropdown(
            [kind.name.lower() for kind in AnswerKind],
            value="text",
            label="Answer of the prompt",
            visible=False,
            elem_id="answer",
        ),
    }


def _add_options(models: Models) -> Mapping[str, Any]:
    import gradio as gr

    precision = models.precisions[0]
    beams = min(models.at(precision).policy.num_beams, LIMITS.beams)
    with gr.Accordion("Search, precision and constraints", open=False, elem_id="options"):
        found: dict[str, Any] = {
            "beams": gr.Slider(1, LIMITS.beams, beams, step=1, label="Beams", elem_id="beams"),
            "tokens": gr.Number(
                0,
                label="Longest answer",
                info="In tokens; 0 for the checkpoint's",
                precision=0,
                elem_id="tokens",
            ),
            "precision": gr.Dropdown(
                list(models.precisions), value=precision, label="Precision", elem_id="precision"
            ),
            "constrain": gr.Checkbox(
                False, label="Keep the grammar of the task", elem_id="constrain"
            ),
            "labels": gr.Textbox(
                label="Labels",
                info="The only ones that may be used, with commas between",
                max_length=LONGEST,
                elem_id="labels",
            ),
            "recall": gr.Number(
                0,
                label="Recall",
                info="How likely the end of a list must be, or from 1 on how many boxes must be "
                "there; 0 for the model's choice",
                elem_id="recall",
            ),
            "min_score": gr.Slider(0, 1, 0, step=0.01, label="Least score", elem_id="min_score"),
        }
    return found


def _add_outputs() -> list[Any]:
    """Makes the components of the outputs, in the order of the outputs."""
    import gradio as gr

    drawings = gr.Gallery(
        label="Drawn",
        format="png",
        object_fit="contain",
        buttons=["download", "fullscreen"],
        elem_id="drawings",
    )
    text = gr.Textbox(
        label="Text", lines=3, max_lines=12, interactive=False, buttons=["copy"], elem_id="answers"
    )
    with gr.Tabs():
        with gr.Tab("Scores"):
            scores = gr.Dataframe(headers=list(SCORES), interactive=False, elem_id="scores")
        with gr.Tab("Time"):
            times = gr.Dataframe(headers=list(TIMES), interactive=False, elem_id="times")
        with gr.Tab("JSON"):
            records = gr.JSON(show_label=False, elem_id="records")
        with gr.Tab("Python"):
            python = _add_code("python", "Copy as Python")
        with gr.Tab("Command"):
            command = _add_code("shell", "Copy as command")
    return [drawings, text, scores, times, records, python, command]


def _add_code(language: str, button: str) -> Any:
    import gradio as gr

    copy = gr.Button(button, size="sm")
    code = gr.Code(language=language, interactive=False, show_label=False, elem_id=language)
    copy.click(None, code, None, js=_COPY)
    return code
