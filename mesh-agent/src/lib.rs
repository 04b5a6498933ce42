//! Crate root; its essay follows with its content.
