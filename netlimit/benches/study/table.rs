//! CSV in, medians out.
