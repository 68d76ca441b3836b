"""Convolutional Similarity for JAX: a loss on kernels that makes feature maps differ."""

__version__ = "0.1.0"

from convsim_jax import orthogonality
from convsim_jax._conv_layers import conv_layers
from convsim_jax._definition import autocorrelation, cross_correlate
from convsim_jax._feature_maps import (
    decorrelation,
    effective_maps,
    feature_map_similarity,
)
from convsim_jax._initialization import SimilarityHistory, minimize_similarity
from convsim_jax._kernels import Layout, conv_kernels, conv_mask
from convsim_jax._layers import ConvLayer, ConvLayers
from convsim_jax._matrices import kernel_cosine_similarity, similarity_matrix
from convsim_jax._redundancy import (
    LayerRedundancy,
    RedundancyReport,
    redundancy_report,
)
from convsim_jax._report import LayerSimilarity, SimilarityReport, similarity_report
from convsim_jax._similarity import Channels, Pairs, convolutional_similarity
from convsim_jax._total import total_similarity
from convsim_jax._transform import (
    AddConvolutionalSimilarityState,
    add_convolutional_similarity,
)
from convsim_jax._with_feature_maps import with_feature_maps

__all__ = [
    # One kernel.
    "cross_correlate",
    "autocorrelation",
    "convolutional_similarity",
    "similarity_matrix",
    "kernel_cosine_similarity",
    "Pairs",
    "Channels",
    # What it is compared with.
    "orthogonality",
    # Feature maps.
    "feature_map_similarity",
    "decorrelation",
    "effective_maps",
    "with_feature_maps",
    "redundancy_report",
    "RedundancyReport",
    "LayerRedundancy",
    # A network.
    "conv_layers",
    "ConvLayers",
    "ConvLayer",
    "conv_kernels",
    "conv_mask",
    "Layout",
    "total_similarity",
    "similarity_report",
    "SimilarityReport",
    "LayerSimilarity",
    # Training.
    "add_convolutional_similarity",
    "AddConvolutionalSimilarityState",
    "minimize_similarity",
    "SimilarityHistory",
]
