//! Times the kernel.

fn main() {}
