//! What the compiler says when `#[derive(Event)]` and `#[derive(View)]` are misused.

#[test]
fn a_misuse_is_explained_at_its_place() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
