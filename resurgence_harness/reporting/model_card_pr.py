"""Proposes the model card's section as a pull request on the Hugging Face hub; the model's owner may merge it.

    resurgence gate … --model-card-pr owner/name

The repository is looked up before any image is drawn, with huggingface_hub's account (HF_TOKEN, `hf auth login`).
Afterwards the section and the metadata are added to the README.md that was read then; nothing else is changed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resurgence_harness.errors import HarnessError, UserError, sentence, shown
from resurgence_harness.reporting import escaping, model_card

README, LARGEST = "README.md", 2_000_000
"""File name of the card, and its maximum size in bytes."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An existing repository for which a pull request will be opened."""

    repo: str
    """owner/name."""
    readme: str
    """Its current card; empty if it has none."""
    revision: str
    """Commit of that card, and parent of the pull request."""

    def send(self, run: Mapping[str, Any]) -> str:
        """Open the pull request and return its URL; HarnessError if the hub does not accept it."""
        from huggingface_hub import CommitOperationAdd, HfApi

        try:
            made = HfApi().create_commit(
                self.repo,
                [CommitOperationAdd(README, model_card.merged(self.readme, run, self.repo).encode())],
                commit_message="Safety evaluation: concept resurgence",
                commit_description=f"Written by {run['tool']}. Policy {run['gate']['policy']['digest']}.",
                create_pr=True,
                parent_commit=self.revision,
            )
        except Exception as error:
            raise HarnessError(
                sentence(
                    f"The pull request to {self.repo} was not opened.",
                    problem=escaping.problem(error),
                    do="The section is in model-card.md; paste it, or give a token that may open pull requests.",
                )
            ) from None
        return escaping.discreet(made.pr_url or made.commit_url)


def prepared(repo: str) -> Proposal:
    """Look up the repository and its card; UserError for whatever prevents a pull request, before sampling."""
    if not _NAME.fullmatch(repo):
        raise UserError(sentence(f'"{shown(repo)}" is not a model repository.', do="Give --model-card-pr owner/name."))
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import EntryNotFoundError

    leave = "or leave --model-card-pr out: the section is written to model-card.md in any case."
    if constants.is_offline_mode():
        raise UserError(
            sentence(
                f"A pull request to {repo} cannot be opened offline.",
                do=f"Unset HF_HUB_OFFLINE for this command, {leave}",
            )
        )
    if not get_token():
        raise UserError(
            sentence(
                f"A pull request to {repo} needs an account, and no token is set.",
                do=f"Set HF_TOKEN, or run `hf auth login`, {leave}",
            )
        )
    api = HfApi()
    try:
        revision = str(api.model_info(repo).sha)
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(api.hf_hub_download(repo, README, revision=revision, local_dir=folder))
                if file.stat().st_size > LARGEST:
                    raise ValueError(f"its card has more than {LARGEST:,} bytes")
                readme = file.read_text(encoding="utf-8")
        except EntryNotFoundError:
            readme = ""
    except Exception as error:
        raise UserError(
            sentence(
                f"The model {repo} cannot be looked up on the hub, so nothing was drawn.",
                problem=escaping.problem(error),
                do=f"Check the name and the token, {leave}",
            )
        ) from None
    model_card.check_readable(readme, repo)
    return Proposal(repo=repo, readme=readme, revision=revision)
