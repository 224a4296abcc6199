"""A model card's section, proposed to the hub as a pull request: who keeps the model decides whether it goes in.

    resurgence gate … --model-card-pr owner/name

Before an image is drawn the repository is looked up with the account that huggingface_hub knows (HF_TOKEN, `hf auth
login`). Afterwards its README.md of that moment gets the section and the metadata, nothing else is changed.
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
"""The card, and its bytes at most."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A repository that was found, to which a pull request will be opened."""

    repo: str
    """owner/name."""
    readme: str
    """Its card as it is; empty where there is none."""
    revision: str
    """The commit whose card that is; the pull request is made against it."""

    def send(self, run: Mapping[str, Any]) -> str:
        """Open the pull request; gives its address. HarnessError where the hub does not take it."""
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
    """The repository and its card; UserError for everything in the way, before anything is drawn."""
    if not _NAME.fullmatch(repo):
        raise UserError(sentence(f'"{shown(repo)}" is no repository of models.', do="Give --model-card-pr owner/name."))
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
                f"A pull request to {repo} needs an account, and no token is known.",
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
