"""The paper's section 4: what minimising CS does to maps of one-channel kernels."""
