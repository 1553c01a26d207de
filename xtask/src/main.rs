//! What people and CI type.

fn main() {}
