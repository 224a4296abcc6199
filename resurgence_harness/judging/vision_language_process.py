"""Run a model with remote code. Executed by path in a separate interpreter; needs only torch and transformers.

    python vision_language_process.py FOLDER      reads images.npy and request.json there, writes answers.json

The calls are those of Molmo 1: `processor.process` for one picture, `model.generate_from_batch` for its answer. The
parent process has checked that this code may be run and belongs to the allowed commit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(place: Path) -> None:
    """Answer every question about every image, one at a time, greedily."""
    import numpy
    import torch
    from PIL import Image
    from transformers import AutoModelForCausalLM, AutoProcessor, GenerationConfig

    request = json.loads((place / "request.json").read_text(encoding="utf-8"))
    images = numpy.load(place / "images.npy", allow_pickle=False)
    local = {"trust_remote_code": True, "local_files_only": True, "torch_dtype": "auto"}
    processors: Any = AutoProcessor
    settings: Any = GenerationConfig
    processor = processors.from_pretrained(request["folder"], **local)
    model = AutoModelForCausalLM.from_pretrained(request["folder"], use_safetensors=True, **local)
    model = model.to(request["device"]).eval()
    greedy = settings(max_new_tokens=request["tokens"], do_sample=False, num_beams=1, stop_strings="<|endoftext|>")

    def answer(image: numpy.ndarray, question: str) -> str:
        inputs = processor.process(images=[Image.fromarray(image)], text=question)
        batch = {}
        for name, value in inputs.items():
            value = value.to(request["device"]).unsqueeze(0)
            batch[name] = value.to(model.dtype) if torch.is_floating_point(value) else value
        with torch.inference_mode():
            tokens = model.generate_from_batch(batch, greedy, tokenizer=processor.tokenizer)
        return str(processor.tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True))

    answers = [[answer(image, question) for image in images] for question in request["questions"]]
    (place / "answers.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
