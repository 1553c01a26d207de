//! What the program prints.

use std::io::{self, ErrorKind};

use annals::testing;

use crate::ended::what_went_wrong;
use crate::story;

#[tokio::test]
async fn the_story_is_told() {
    let mut told = Vec::new();
    story::tell(&testing::annals(), &mut told).await.unwrap();
    insta::assert_snapshot!(String::from_utf8(told).unwrap());
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_the_story_quietly() {
    let (reader, mut writer) = io::pipe().unwrap();
    drop(reader);
    let told = story::tell(&testing::annals(), &mut writer).await;
    assert!(told.is_err(), "it was not noticed");
    assert!(what_went_wrong(told).is_none());
    let full = Err(io::Error::from(ErrorKind::StorageFull).into());
    assert!(what_went_wrong(full).is_some());
}
