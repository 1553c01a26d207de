//! One stream for several stages, several streams for one, and the end of a pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Batch, Saved, Stage};
use crate::{Changes, Codec, Row, Side, StateError, Time};

/// One stream for several stages.
///
/// ```
/// use annals_streams::{Branch, Codec, Stage};
///
/// fn both<C: Codec>(one: Box<dyn Stage<u8, C>>, other: Box<dyn Stage<u8, C>>) -> Branch<u8, C> {
///     Branch::new(vec![one, other])
/// }
/// ```
pub struct Branch<T, C> {
    to: Vec<Box<dyn Stage<T, C>>>,
}

impl<T, C: Codec> Branch<T, C> {
    /// To each of these, in this order.
    ///
    /// ```
    /// # use annals_streams::{Branch, Codec};
    /// fn nowhere<C: Codec>() -> Branch<u8, C> {
    ///     Branch::new(vec![])
    /// }
    /// ```
    pub fn new(to: Vec<Box<dyn Stage<T, C>>>) -> Self {
        Self { to }
    }
}

impl<T, C: Codec> Stage<T, C> for Branch<T, C> {
    fn take(&mut self, batch: &Batch<T>) {
        self.to.iter_mut().for_each(|stage| stage.take(batch));
    }
}

impl<T, C: Codec> Saved for Branch<T, C> {
    fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
        self.to.iter_mut().try_for_each(|stage| stage.save(to))
    }

    fn load(
        &mut self,
        stage: u16,
        key: &[u8],
        place: &[u8],
        value: &[u8],
    ) -> Result<bool, StateError> {
        for branch in &mut self.to {
            if branch.load(stage, key, place, value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn resume(&mut self, watermark: Time) {
        self.to.iter_mut().for_each(|stage| stage.resume(watermark));
    }
}

/// Two streams of one log brought together, page by page, in the order of their causes; at one
/// cause the left one first.
///
/// ```
/// use annals_streams::{Codec, Joint, Side, Stage};
///
/// type Port<T, C> = Box<dyn Stage<T, C>>;
///
/// fn together<C: Codec + 'static>(then: Port<Side<u8, char>, C>) -> (Port<u8, C>, Port<char, C>) {
///     let (left, right) = Joint::ports(then);
///     (Box::new(left), Box::new(right))
/// }
/// ```
pub struct Joint<L, R, C> {
    left: Option<Batch<L>>,
    right: Option<Batch<R>>,
    resumed: Option<Time>,
    then: Box<dyn Stage<Side<L, R>, C>>,
}

/// An end of a [`Joint`] for one of its streams.
///
/// ```
/// use annals_streams::{Codec, Joint, JointEnd, Side, Stage};
///
/// type Left<C> = JointEnd<u8, char, C, true>;
///
/// fn left<C: Codec>(then: Box<dyn Stage<Side<u8, char>, C>>) -> Left<C> {
///     Joint::ports(then).0
/// }
/// ```
pub struct JointEnd<L, R, C, const LEFT: bool>(Arc<Mutex<Joint<L, R, C>>>);

impl<L, R, C: Codec> Joint<L, R, C> {
    /// The two ends. Each has to take every page.
    ///
    /// ```
    /// # use annals_streams::{Codec, Joint, Side, Stage};
    /// fn ends<C: Codec>(then: Box<dyn Stage<Side<u8, u8>, C>>) {
    ///     let (_left, _right) = Joint::ports(then);
    /// }
    /// ```
    pub fn ports(
        then: Box<dyn Stage<Side<L, R>, C>>,
    ) -> (JointEnd<L, R, C, true>, JointEnd<L, R, C, false>) {
        let joint = Arc::new(Mutex::new(Self {
            left: None,
            right: None,
            resumed: None,
            then,
        }));
        (JointEnd(Arc::clone(&joint)), JointEnd(joint))
    }

    fn go_on(&mut self) {
        let Some(left) = self.left.take_if(|_| self.right.is_some()) else {
            return;
        };
        let Some(right) = self.right.take() else {
            return;
        };
        let page = left.page.least(&right.page);
        let mut rows = Vec::with_capacity(left.rows.len() + right.rows.len());
        let mut right = right.rows.into_iter().peekable();
        for row in left.rows {
            while let Some(earlier) = right.next_if(|other| other.when < row.when) {
                rows.push(Row {
                    when: earlier.when,
                    time: earlier.time,
                    item: Side::Right(earlier.item),
                });
            }
            rows.push(Row {
                when: row.when,
                time: row.time,
                item: Side::Left(row.item),
            });
        }
        let rest = right.map(|row| Row {
            when: row.when,
            time: row.time,
            item: Side::Right(row.item),
        });
        rows.extend(rest);
        self.then.take(&Batch { page, rows });
    }

    /// Goes on from the lower of the two clocks.
    fn resume(&mut self, watermark: Time) {
        match self.resumed.take() {
            None => self.resumed = Some(watermark),
            Some(other) => self.then.resume(watermark.min(other)),
        }
    }
}

macro_rules! joint_end {
    ($is_left:literal, $item:ident, $side:ident) => {
        impl<L, R, C> Stage<$item, C> for JointEnd<L, R, C, $is_left>
        where
            L: Clone + Send,
            R: Clone + Send,
            C: Codec,
        {
            fn take(&mut self, batch: &Batch<$item>) {
                let mut joint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                joint.$side = Some(batch.clone());
                joint.go_on();
            }
        }

        impl<L, R, C> Saved for JointEnd<L, R, C, $is_left>
        where
            L: Clone + Send,
            R: Clone + Send,
            C: Codec,
        {
            // What comes after both inputs is saved and loaded through one of them.
            fn save(&mut self, to: &mut Changes) -> Result<(), StateError> {
                if !$is_left {
                    return Ok(());
                }
                self.0
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .then
                    .save(to)
            }

            fn load(
                &mut self,
                stage: u16,
                key: &[u8],
                place: &[u8],
                value: &[u8],
            ) -> Result<bool, StateError> {
                if !$is_left {
                    return Ok(false);
                }
                let mut joint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                joint.then.load(stage, key, place, value)
            }

            fn resume(&mut self, watermark: Time) {
                let mut joint = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                joint.resume(watermark);
            }
        }
    };
}

joint_end!(true, L, left);
joint_end!(false, R, right);

/// The end of a pipeline: what is done with each batch.
///
/// ```
/// use annals_streams::{Batch, Codec, Sink, Stage};
///
/// fn counted<C: Codec>() -> impl Stage<u8, C> {
///     let mut seen = 0;
///     Sink::new(move |batch: &Batch<u8>| seen += batch.rows.len())
/// }
/// ```
pub struct Sink<F>(F);

impl<F> Sink<F> {
    /// Does this.
    ///
    /// ```
    /// # use annals_streams::{Batch, Sink};
    /// Sink::new(|_: &Batch<u8>| ());
    /// ```
    pub fn new(f: F) -> Self {
        Self(f)
    }
}

impl<T, C: Codec, F: FnMut(&Batch<T>) + Send> Stage<T, C> for Sink<F> {
    fn take(&mut self, batch: &Batch<T>) {
        (self.0)(batch);
    }
}

impl<F: Send> Saved for Sink<F> {
    fn save(&mut self, _: &mut Changes) -> Result<(), StateError> {
        Ok(())
    }

    fn load(&mut self, _: u16, _: &[u8], _: &[u8], _: &[u8]) -> Result<bool, StateError> {
        Ok(false)
    }

    fn resume(&mut self, _: Time) {}
}
