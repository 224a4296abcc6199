"""Checks that the described bytes are a CLIP tokenizer, and builds it as it is used for drawing. Needs no torch.

Stable Diffusion's tokenizer is byte-level BPE after fixed rules: NFC, one space for white space, lower case, a split
by one regular expression. transformers builds these rules itself and takes vocabulary and merges from the file; other
readers (older releases, tokenizers, web interfaces) take the rules from the file too. So the file must have exactly
these rules: then all readers agree, and no foreign normalizer, pattern or template, which may need gigabytes, is built.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from resurgence_harness.diffusion.tensor_files import parse_json
from resurgence_harness.errors import UserError, sentence, shown

WORDS, ADDED, LETTERS = 1_000_000, 2_000, 128
"""Most tokens of a vocabulary, most tokens added to it, and most characters of an added token."""
_PATTERNS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
)
"""CLIP's split into words, as transformers 5 and 4 write it."""
_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Lowercase"},
    ],
}
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_DEFAULTS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
_LISTS = ("additional_special_tokens", "extra_special_tokens")
_DO = "Give the tokenizer's vocab.json and merges.txt, or its tokenizer.json, of the same model."


def _text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _flag(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**31)


def _exactly(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(type(value) is type(one) and value == one for one in values)


_KEYS: Mapping[str, Callable[[Any], bool]] = {
    "model_max_length": lambda value: type(value) is int and 3 <= value <= 10**31,  # transformers writes 10³⁰ for none
    "add_prefix_space": _exactly(False),
    "do_lower_case": _exactly(True),
    "split_special_tokens": _exactly(False),
    "padding_side": _exactly("right"),
    "truncation_side": _exactly("right"),
    "tokenizer_class": _exactly("CLIPTokenizer", "CLIPTokenizerFast"),
    "init_inputs": _exactly([], None),
    "auto_map": _exactly({}, None),
    "model_input_names": _exactly(["input_ids", "attention_mask"]),
    "clean_up_tokenization_spaces": _flag,
    "errors": _exactly("replace"),
    "stride": _exactly(0),
    "pad_to_multiple_of": _exactly(None),
    "pad_token_type_id": _exactly(0),
    # The rest has no effect on the tokens of a text.
    **dict.fromkeys(("name_or_path", "special_tokens_map_file", "tokenizer_file", "backend", "processor_class"), _text),
    **dict.fromkeys(("truncation_strategy", "chat_template"), _text),
    **dict.fromkeys(("is_local", "local_files_only", "use_fast", "add_bos_token", "add_eos_token", "verbose"), _flag),
    "max_length": _count,
    "files_loaded": _exactly([], None),
}
"""Keys of tokenizer_config.json that do not name tokens → check of their values; any other key is refused."""


def check_tokenizer(files: Mapping[str, bytes], folder: Path, places: int | None = None) -> None:
    """UserError unless these files (name → bytes) are one CLIP tokenizer that fits the text encoder.

    `places`: rows of the text encoder's embedding, not checked if None. `folder` is named in messages.
    """
    config = parse_json(files["tokenizer_config.json"], folder / "tokenizer_config.json")
    declared: dict[str, int | None] = {}
    for word, number in _configured(config, folder):
        _declare(declared, word, number, folder)
    found = []
    if "tokenizer.json" in files:
        found.append(_from_json(parse_json(files["tokenizer.json"], folder / "tokenizer.json"), declared, folder))
    if "vocab.json" in files or "merges.txt" in files:
        found.append(_from_pair(files, folder))
    if not found:
        raise UserError(
            sentence(
                f"The base at {folder.parent} has no tokenizer vocabulary.",
                wanted="tokenizer.json, or vocab.json and merges.txt",
                do=_DO,
            )
        )
    if found[0] != found[-1]:
        raise _wrong(folder, "tokenizer.json and vocab.json with merges.txt, which differ", "one vocabulary")
    vocabulary = found[0][0]
    if "special_tokens_map.json" in files:
        for word in _mapped(parse_json(files["special_tokens_map.json"], folder / "special_tokens_map.json"), folder):
            _declare(declared, word, None, folder)
    if "added_tokens.json" in files:
        added = parse_json(files["added_tokens.json"], folder / "added_tokens.json")
        if len(added) > ADDED or None in added.values():
            raise _wrong(folder, f"added_tokens.json with {len(added):,} tokens", f"at most {ADDED:,}, each with an id")
        for word, number in added.items():
            _declare(declared, _word(word, folder), number, folder)
    _check_places(vocabulary, declared, places, folder)


def tokenizer_of(files: Mapping[str, bytes], folder: Path) -> Any:
    """transformers' CLIPTokenizer of these files (name → bytes), read from a private copy of the checked bytes.

    Call `check_tokenizer` first; UserError if transformers cannot build it even so.
    """
    from transformers import CLIPTokenizer

    try:
        holder = tempfile.TemporaryDirectory(prefix="resurgence-tokenizer-")
    except OSError as problem:
        raise UserError(
            sentence(
                "There is no folder for temporary files, which reading a tokenizer needs.",
                reason=problem.strerror or problem,
                do="Set TMPDIR to a folder that can be written.",
            )
        ) from None
    try:
        with holder as private:
            for name, data in files.items():
                (Path(private) / name).write_bytes(data)
            return CLIPTokenizer.from_pretrained(private, local_files_only=True)
    except Exception as problem:  # any failure of a library becomes a UserError
        raise UserError(
            sentence(
                f"The tokenizer at {folder} cannot be built.",
                problem=shown(str(problem) or type(problem).__name__, limit=300),
                do=_DO,
            )
        ) from None


def _configured(config: Mapping[str, Any], folder: Path) -> Iterable[tuple[str, int | None]]:
    """(token, its id or None) for every token that tokenizer_config.json names; UserError for an unknown key."""
    for name, value in config.items():
        if name in _NAMED:
            if value is not None:
                yield _token(value, folder, typed=True), None
        elif name in _LISTS:
            if isinstance(value, dict) and value:
                raise _wrong(folder, f"{name} = {value}", "a list")
            yield from ((_token(one, folder, typed=True), None) for one in _list(value, name, folder))
        elif name == "added_tokens_decoder":
            if not isinstance(value, dict) or len(value) > ADDED:
                raise _wrong(folder, f"{name} = {value!r}", "id → token")
            for number, token in value.items():
                if not number.isascii() or not number.isdigit() or len(number) > 9 or not isinstance(token, dict):
                    raise _wrong(folder, f"{name} = {value!r}", "id → token")
                yield _token(token, folder, typed=False), int(number)
        elif name not in _KEYS or not _KEYS[name](value):
            raise _wrong(folder, f"{name} = {value!r} in tokenizer_config.json", "no such setting of a CLIP tokenizer")
    for name, word in _DEFAULTS.items():
        if name not in config:
            yield word, None


def _mapped(given: Mapping[str, Any], folder: Path) -> Iterable[str]:
    """The tokens of special_tokens_map.json."""
    for name, value in given.items():
        if name in _NAMED and value is not None:
            yield _token(value, folder, typed=False)
        elif name in _LISTS:
            yield from (_token(one, folder, typed=False) for one in _list(value, name, folder))
        else:
            raise _wrong(folder, f"{name} = {value!r} in special_tokens_map.json", "kinds of special tokens")


def _list(value: Any, name: str, folder: Path) -> list[Any]:
    if value is None or value == {}:
        return []
    if not isinstance(value, list) or len(value) > ADDED:
        raise _wrong(folder, f"{name} = {value!r}", f"a list of at most {ADDED:,} tokens")
    return value


def _token(value: Any, folder: Path, *, typed: bool) -> str:
    """The token's text, given as a string or an AddedToken; `typed`: an AddedToken must have its "__type"."""
    if isinstance(value, dict):
        flags = {"lstrip", "rstrip", "single_word", "normalized", "special"}
        rest = value.keys() - flags - {"content"}
        wanted = {"__type"} if typed else set()
        if rest != wanted or value.get("__type", "AddedToken") != "AddedToken":
            raise _wrong(folder, f"the token {value!r}", "a text, or an AddedToken")
        if not all(isinstance(value[name], bool) for name in flags & value.keys()):
            raise _wrong(folder, f"the token {value!r}", "true or false in its flags")
        value = value.get("content")
    return _word(value, folder)


def _word(value: Any, folder: Path) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= LETTERS or not value.strip():
        raise _wrong(folder, f"the added token {value!r}", f"a text of at most {LETTERS} characters")
    return value


def _declare(declared: dict[str, int | None], word: str, number: Any, folder: Path) -> None:
    """Record a token, and its id if it has one; UserError for two different ids of one token."""
    before = declared.setdefault(word, None)
    if number is None:
        return
    if type(number) is not int or before not in (None, number):
        raise _wrong(folder, f"{word!r} with the id {number!r}", "one integer id for each token")
    declared[word] = number


Vocabulary = tuple[dict[str, int], list[tuple[str, str]]]
"""Token → id, and the merges in their order."""


def _from_json(given: Mapping[str, Any], declared: dict[str, int | None], folder: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json; declares its added tokens. UserError if its rules are not CLIP's."""
    model = given.get("model")
    odd = given.keys() - {
        *("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"),
        *("post_processor", "decoder", "model"),
    }
    if odd or not isinstance(model, dict):
        raise _wrong(folder, f"{min(odd, default='no model')} in tokenizer.json", "a CLIP tokenizer")
    wanted: Mapping[str, Callable[[Any], bool]] = {
        "type": _exactly("BPE"),
        "dropout": _exactly(None),
        "unk_token": _text,
        "continuing_subword_prefix": _exactly("", None),
        "end_of_word_suffix": _exactly("</w>"),
        "fuse_unk": _exactly(False),
        "byte_fallback": _exactly(False),
        "ignore_merges": _exactly(False),
        "vocab": lambda value: isinstance(value, dict),
        "merges": lambda value: isinstance(value, list),
    }
    for name, value in model.items():
        if name not in wanted or not wanted[name](value):
            raise _wrong(folder, f"model.{name} = {value!r}", "the byte-level BPE of CLIP")
    if missing := {"type", "end_of_word_suffix", "vocab", "merges"} - model.keys():
        raise _wrong(folder, f"no model.{min(missing)} in tokenizer.json", "the byte-level BPE of CLIP")
    for name, fits in _RULES.items():
        if not fits(given.get(name)):
            raise _wrong(folder, f"{name} = {given.get(name)!r}", f"the {name} of CLIP")
    added = given.get("added_tokens")
    if not isinstance(added, list) or len(added) > ADDED:
        raise _wrong(folder, "added_tokens", f"a list of at most {ADDED:,} tokens")
    keys = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}
    for token in added:
        if not isinstance(token, dict) or token.keys() != keys:
            raise _wrong(folder, f"the token {token!r}", "id, content and flags")
        word = _token({name: value for name, value in token.items() if name != "id"}, folder, typed=False)
        if token["id"] is None:
            raise _wrong(folder, f"the token {token!r}", "an id for each token")
        _declare(declared, word, token["id"], folder)
    vocabulary = _vocabulary(model["vocab"], folder)
    merges = _merges(
        (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]), vocabulary, folder
    )
    post = given["post_processor"]
    for end in ("sep", "cls"):
        pair = post[end]
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and vocabulary.get(pair[0], declared.get(pair[0])) == pair[1]
        ):
            raise _wrong(folder, f"post_processor.{end} = {pair!r}", "a token of the vocabulary, and its id")
    return vocabulary, merges


def _split(value: Any) -> bool:
    """Whether a pre-tokenizer is CLIP's."""
    if not isinstance(value, dict) or value.keys() != {"type", "pretokenizers"} or value["type"] != "Sequence":
        return False
    rules = value["pretokenizers"]
    if not isinstance(rules, list) or len(rules) != 2:
        return False
    return any(
        rules[0] == {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
        for pattern in _PATTERNS
    ) and _bytes_rule(rules[1], prefix=False)


def _bytes_rule(value: Any, *, prefix: bool | None = None) -> bool:
    flags = {"add_prefix_space", "trim_offsets", "use_regex"}
    return (
        isinstance(value, dict)
        and value.get("type") == "ByteLevel"
        and value.keys() <= {"type", *flags}
        and all(isinstance(value[name], bool) for name in flags & value.keys())
        and value.get("use_regex", True) is True
        and (prefix is None or value.get("add_prefix_space") is prefix)
    )


def _ends(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"type", "sep", "cls", "trim_offsets", "add_prefix_space"}
        and value["type"] == "RobertaProcessing"
        and isinstance(value["trim_offsets"], bool)
        and value["add_prefix_space"] is False
    )


def _cut(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and value.keys() == {"direction", "max_length", "strategy", "stride"}
        and value["direction"] == "Right"
        and value["stride"] == 0
        and value["strategy"] in ("LongestFirst", "OnlyFirst", "OnlySecond")
        and type(value["max_length"]) is int
        and 3 <= value["max_length"] <= 4096
    )


def _padded(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    fixed = value.get("strategy")
    return (
        value.keys() == {"strategy", "direction", "pad_to_multiple_of", "pad_id", "pad_type_id", "pad_token"}
        and value["direction"] == "Right"
        and value["pad_to_multiple_of"] is None
        and value["pad_type_id"] == 0
        and isinstance(value["pad_token"], str)
        and _count(value["pad_id"])
        and value["pad_id"] is not None
        and (
            fixed == "BatchLongest"
            or (
                isinstance(fixed, dict)
                and fixed.keys() == {"Fixed"}
                and type(fixed["Fixed"]) is int
                and 1 <= fixed["Fixed"] <= 4096
            )
        )
    )


_RULES: Mapping[str, Callable[[Any], bool]] = {
    "version": _exactly("1.0"),
    "normalizer": lambda value: value == _NORMALIZER,
    "pre_tokenizer": _split,
    "decoder": _bytes_rule,
    "post_processor": _ends,
    "truncation": _cut,
    "padding": _padded,
}
"""Part of a tokenizer.json → whether it is CLIP's."""


def _from_pair(files: Mapping[str, bytes], folder: Path) -> Vocabulary:
    """The vocabulary of vocab.json and merges.txt."""
    for name in ("vocab.json", "merges.txt"):
        if name not in files:
            raise _wrong(folder, f"no {name}", "vocab.json and merges.txt together, or tokenizer.json alone")
    vocabulary = _vocabulary(parse_json(files["vocab.json"], folder / "vocab.json"), folder)
    try:
        lines = files["merges.txt"].decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise _wrong(folder, "a merges.txt that is not UTF-8", "two tokens a line") from None
    lines = [line.removesuffix("\r") for line in lines if not line.startswith("#version")]
    return vocabulary, _merges((line.split(" ") for line in lines if line), vocabulary, folder)


def _vocabulary(given: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Token → id; UserError unless the ids are 0, 1, 2, …, each once."""
    if not 3 <= len(given) <= WORDS:
        raise _wrong(folder, f"{len(given):,} tokens", f"a vocabulary of 3 to {WORDS:,} tokens")
    for word, number in given.items():
        if type(number) is not int:
            raise _wrong(folder, f"{word!r} with the id {number!r}", "integer ids")
    if sorted(given.values()) != list(range(len(given))):
        raise _wrong(folder, "token ids that have gaps, or occur twice", "0, 1, 2, …, each once")
    return dict(given)


def _merges(pairs: Iterable[Any], vocabulary: Mapping[str, int], folder: Path) -> list[tuple[str, str]]:
    """Pairs of tokens whose concatenation is a token; UserError for any other pair, or one that occurs twice."""
    merges: dict[tuple[str, str], None] = {}
    for pair in pairs:
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(piece, str) and piece in vocabulary for piece in pair)
            and pair[0] + pair[1] in vocabulary
        ):
            raise _wrong(folder, f"the merge {pair!r}", "two tokens of the vocabulary that make a third")
        if (pair[0], pair[1]) in merges:
            raise _wrong(folder, f"the merge {pair!r} twice", "each merge once")
        merges[pair[0], pair[1]] = None
    return list(merges)


def _check_places(
    vocabulary: Mapping[str, int], declared: Mapping[str, int | None], places: int | None, folder: Path
) -> None:
    """UserError unless added tokens' ids follow the vocabulary's, and the text encoder has a row for every token."""
    added = {word: number for word, number in declared.items() if word not in vocabulary}
    for word, number in declared.items():
        if number is not None and vocabulary.get(word, number) != number:
            raise _wrong(folder, f"{word!r} with the ids {vocabulary[word]} and {number}", "one id for each token")
    numbers = sorted(number for number in added.values() if number is not None)
    if numbers != list(range(len(vocabulary), len(vocabulary) + len(numbers))):
        raise _wrong(folder, f"added tokens with the ids {numbers}", f"{len(vocabulary)}, {len(vocabulary) + 1}, …")
    size = len(vocabulary) + len(added)
    if places is not None and not places // 2 < size <= places:
        raise UserError(
            sentence(
                f"The tokenizer of the base at {folder.parent} does not belong to its text encoder.",
                tokenizer=f"{size:,} tokens",
                text_encoder=f"{places:,} embeddings",
                do=_DO,
            )
        )


def _wrong(folder: Path, found: str, expected: str) -> UserError:
    return UserError(
        sentence(f"The tokenizer at {folder} is not one of CLIP.", found=shown(found), expected=expected, do=_DO)
    )
