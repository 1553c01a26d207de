//! What the compiler says when `#[derive(Event)]` is misused.

#[test]
fn a_misuse_is_explained_where_it_stands() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
