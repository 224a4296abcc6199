"""Training the microworld from scratch, in three stages.

    python -m resurgence_harness.microworld.training autoencoder --out DIR     the VAE
    python -m resurgence_harness.microworld.training perception  --out DIR     text encoder and judges
    python -m resurgence_harness.microworld.training denoiser    --out DIR     the U-Net, then its quality (bars)

    python -m resurgence_harness.microworld.training all  --layout xl --out DIR                micro-xl, about 6 minutes
    python -m resurgence_harness.microworld.training bars --layout xl --out DIR --least 0.95   its quality again

With `--layout xl` the model has Stable Diffusion XL's parts; autoencoder and judges are the shipped ones.

A stage whose finished files exist does nothing. The autoencoder and the U-Net write snapshots every minute and continue
from the last one; the text encoder and the judges, a minute or two each, start again. `--smoke` runs the same code at a
size that takes seconds. The judges are trained on renders and reconstructions, never on samples of the U-Net, and no
shipped judge is used in a loss of the autoencoder or the U-Net.
"""
