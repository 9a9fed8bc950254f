//! Submodules: where they come from (relative URLs included) and bringing them into a work tree.
