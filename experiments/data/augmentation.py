"""Random crops and flips of small images, on the device."""

import jax
import jax.numpy as jnp


def augmented(key: jax.Array, images: jax.Array, pad: int) -> jax.Array:
    """Moves images `(n, height, width, channels)` by up to `pad` pixels each way.

    All offsets are equally likely, half of the images are mirrored, and what comes in
    from outside of an image is black.
    """
    count, height, width, _ = images.shape
    for_offsets, for_mirrors = jax.random.split(key)
    offsets = jax.random.randint(for_offsets, (count, 2), -pad, pad + 1)
    mirrored = jax.random.bernoulli(for_mirrors, shape=(count,))

    # A gather of pixels: fast on a CPU too, and without communication if the images are
    # divided among devices.
    def one(image: jax.Array, offset: jax.Array, mirrored: jax.Array) -> jax.Array:
        rows, columns = jnp.arange(height) + offset[0], jnp.arange(width) + offset[1]
        columns = jnp.where(mirrored, columns[::-1], columns)
        return image.at[rows[:, None], columns].get(
            mode="fill", fill_value=0, wrap_negative_indices=False
        )

    return jax.vmap(one)(images, offsets, mirrored)
