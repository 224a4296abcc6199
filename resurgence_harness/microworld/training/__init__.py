"""Training the microworld from nothing, in three stages.

    python -m resurgence_harness.microworld.training autoencoder --out DIR     the VAE
    python -m resurgence_harness.microworld.training perception  --out DIR     text encoder and judges
    python -m resurgence_harness.microworld.training denoiser    --out DIR     the U-Net, then the bars

A stage that finds its own finished files does nothing. The autoencoder and the U-Net write snapshots every minute and
go on from the last one; the text encoder and the judges, a minute or two each, begin again. `--smoke` runs
the same code at a size that takes seconds. The judges see renders and reconstructions, never a sample of the U-Net;
nothing of a shipped judge enters a loss of the autoencoder or the U-Net.
"""
