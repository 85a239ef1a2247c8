"""Pictures of what a network looks at: gradients, deconvolution, synthesis, occlusion, and how far to trust them."""
