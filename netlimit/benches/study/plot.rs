pub fn main(_: &std::path::Path) {}
