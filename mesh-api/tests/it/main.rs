//! The crate as its users see it: whole files in, objects and diagnostics out.

mod broken;
mod hostile;
mod samples;
