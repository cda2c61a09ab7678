"""What the client checks share: pixels, shards, embeddings of lamella, distances."""
import csv
import os
import subprocess
import sys

import numpy as np


def lamella(*arguments):
    """Runs the command given as first argument of the script; its last line of standard error where it fails."""
    done = subprocess.run([sys.argv[1], *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stderr


def shards(folder, channels, size, count=4):
    """uint8 images [count, channels, size, size], packed."""
    pixels = np.random.RandomState(channels).randint(0, 256, (count, channels, size, size)).astype(np.uint8)
    pixels //= np.arange(1, channels + 1).reshape(-1, 1, 1).astype(np.uint8)
    os.makedirs(folder + "/images")
    with open(folder + "/images.csv", "w") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "plate", "well", "site"])
        for i, image in enumerate(pixels):
            np.save(f"{folder}/images/{i}.npy", image)
            rows.writerow([f"{i}.npy", "p", f"A{i:02d}", 1])
    lamella("pack", folder + "/images.csv", "--images", folder + "/images", "--out", folder + "/shards", "--quiet")
    return pixels, folder + "/shards"


def embed(checkpoint, packed, out, *options):
    lamella("embed", checkpoint, packed, "--out", out, "--batch", 1, "--force", "--quiet", *options)
    return np.load(out).astype(np.float64)


def distance(ours, theirs):
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def check(what, ours, theirs, bound):
    error = distance(np.asarray(ours), np.asarray(theirs))
    print(f"{what:72s} {error:.1e}")
    assert error < bound, f"{what}: {error}"


def standardised(pixels):
    """Each crop and channel by itself, as OpenPhenom and data.normalize: crop do."""
    x = pixels.astype(np.float64) / 255
    return (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + 1e-5)
