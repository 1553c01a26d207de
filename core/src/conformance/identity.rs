//! A request is known by its ids, for ever.

use super::Fixture;
use super::words::*;
use crate::append::{Append, AppendError};
use crate::stream_state::{ChangeStream, Status, StreamChange};

pub async fn a_change_that_is_repeated_is_made_once(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("deleted-1");
    append(&*store, &to, events(2)).await;
    let delete = ChangeStream::new(&to, StreamChange::Delete);
    store.change_stream(delete.clone()).await.unwrap();
    append(&*store, &to, events(1)).await;
    let state = store.change_stream(delete.clone()).await.unwrap();
    assert_eq!((state.status, state.version.get()), (Status::Active, 3));
    assert_eq!(shown(&*store, &to).await.len(), 1);

    let other = ChangeStream::new(&to, StreamChange::Tombstone).id(delete.id);
    let refused = store.change_stream(other).await.unwrap_err();
    assert!(matches!(refused, AppendError::IdClash(_)), "{refused:?}");
}

pub async fn a_known_id_beside_a_new_one_is_refused(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("half-1");
    let known = events(1);
    append(&*store, &to, known.clone()).await;
    let mut half = events(1);
    half.extend(known);
    let refused = store
        .append(Append::new(to.clone(), half))
        .await
        .unwrap_err();
    assert!(matches!(refused, AppendError::IdClash(_)), "{refused:?}");
    assert_eq!(shown(&*store, &to).await.len(), 1);
}
