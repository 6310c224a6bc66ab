"""Equations: what a neuron does in a step, its adjoint, and the shapes of surrogate derivatives."""
