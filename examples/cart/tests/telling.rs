//! What the program prints.

use annals::testing;

use crate::story;

#[tokio::test]
async fn the_story_is_told() {
    let mut told = Vec::new();
    story::tell(&testing::annals(), &mut told).await.unwrap();
    insta::assert_snapshot!(String::from_utf8(told).unwrap());
}
